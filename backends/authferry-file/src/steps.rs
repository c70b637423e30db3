//! Every change to the disk goes through here, one at a time, so that a test can see
//! their order, and can let the process die or the disk fail between any two of them.

/// Does one thing that changes the disk.
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
    //! What happens at the boundaries: before each change, and after it.

    use std::{cell::RefCell, io};

    use rustix::{io::Errno, process::Signal};

    #[derive(Clone, Copy)]
    pub(crate) enum Fault {
        /// The process is killed as by `kill -9`.
        Kill,
        /// The disk fails with this error; after a change, although it was made.
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

    /// Lets `fault` happen at the boundary `number` of this thread, while `run` runs.
    /// Returns its result and whether the boundary was reached.
    pub(crate) fn with<T>(number: usize, fault: Fault, run: impl FnOnce() -> T) -> (T, bool) {
        SCRIPT.with_borrow_mut(|script| script.fault = Some((number, fault)));
        let result = run();
        let left = SCRIPT.with_borrow_mut(|script| script.fault.take());
        (result, left.is_none())
    }

    /// Returns what `run` changed on this thread, in order.
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
                // Nobody gets here: the signal cannot be held up.
                unreachable!("still alive");
            }
            Some((number, fault)) => {
                SCRIPT.with_borrow_mut(|script| script.fault = Some((number - 1, fault)));
                Ok(())
            }
        }
    }
}
