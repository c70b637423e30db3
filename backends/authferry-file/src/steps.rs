//! Every change to the disk goes through this module, so that a test can check the order of the
//! changes, and can kill the process or fail the disk between any two of them.

/// Executes one change to the disk.
#[cfg(not(test))]
pub(crate) fn change<T>(
    _what: &'static str,
    act: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    act()
}

#[cfg(test)]
pub(crate) use script::change;

#[cfg(test)]
pub(crate) mod script {
    //! Injects a fault at a boundary: before or after a change.

    use std::{cell::RefCell, io};

    use rustix::{io::Errno, process::Signal};

    #[derive(Clone, Copy)]
    pub(crate) enum Fault {
        /// Kills the process, like `kill -9`.
        Kill,
        /// Fails with this error; after a change, although the change was made.
        Fail(Errno),
    }

    #[derive(Default)]
    struct Script {
        fault: Option<(usize, Fault)>,
        done: Vec<&'static str>,
    }

    thread_local! {
        static SCRIPT: RefCell<Script> = RefCell::default();
    }

    /// Runs `run` with `fault` at the boundary `number` of this thread. Returns the result and
    /// whether the boundary was reached.
    pub(crate) fn with<T>(number: usize, fault: Fault, run: impl FnOnce() -> T) -> (T, bool) {
        SCRIPT.with_borrow_mut(|script| script.fault = Some((number, fault)));
        let result = run();
        let left = SCRIPT.with_borrow_mut(|script| script.fault.take());
        (result, left.is_none())
    }

    /// Returns the changes that `run` makes on this thread, in order.
    pub(crate) fn changes(run: impl FnOnce()) -> Vec<&'static str> {
        SCRIPT.take();
        run();
        SCRIPT.take().done
    }

    pub(crate) fn change<T>(
        what: &'static str,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        boundary()?;
        let result = act()?;
        SCRIPT.with_borrow_mut(|script| script.done.push(what));
        boundary()?;
        Ok(result)
    }

    fn boundary() -> io::Result<()> {
        match SCRIPT.with_borrow_mut(|script| script.fault.take()) {
            None => Ok(()),
            Some((0, Fault::Fail(errno))) => Err(errno.into()),
            Some((0, Fault::Kill)) => {
                rustix::process::kill_process(rustix::process::getpid(), Signal::KILL)?;
                // SIGKILL cannot be blocked.
                unreachable!("still alive");
            }
            Some((number, fault)) => {
                SCRIPT.with_borrow_mut(|script| script.fault = Some((number - 1, fault)));
                Ok(())
            }
        }
    }
}
