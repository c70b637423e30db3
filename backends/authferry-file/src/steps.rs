//! Every change to the disk goes through here, one at a time, so that a test can let
//! the process die or the disk fail between any two of them.

/// Does one thing that changes the disk.
#[cfg(not(test))]
pub(crate) fn change<T>(act: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    act()
}

#[cfg(test)]
pub(crate) use script::change;

#[cfg(test)]
pub(crate) mod script {
    //! A fault at the n-th boundary: before a change, or after it.

    use std::{cell::Cell, io};

    use rustix::{io::Errno, process::Signal};

    /// What happens at the boundary.
    #[derive(Clone, Copy)]
    pub(crate) enum Fault {
        /// The process is killed as by `kill -9`.
        Kill,
        /// The disk fails with this error; after a change, although it was made.
        Fail(Errno),
    }

    thread_local! {
        static NEXT: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
    }

    /// Lets `fault` happen at the boundary `number` of this thread, while `run` runs.
    /// Returns its result and whether the boundary was reached.
    pub(crate) fn with<T>(number: usize, fault: Fault, run: impl FnOnce() -> T) -> (T, bool) {
        NEXT.set(Some((number, fault)));
        let result = run();
        (result, NEXT.take().is_none())
    }

    pub(crate) fn change<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        boundary()?;
        let result = act()?;
        boundary()?;
        Ok(result)
    }

    fn boundary() -> io::Result<()> {
        match NEXT.take() {
            None => Ok(()),
            Some((0, Fault::Fail(errno))) => Err(errno.into()),
            Some((0, Fault::Kill)) => {
                rustix::process::kill_process(rustix::process::getpid(), Signal::KILL)?;
                // Nobody gets here: the signal cannot be held up.
                unreachable!("still alive");
            }
            Some((number, fault)) => {
                NEXT.set(Some((number - 1, fault)));
                Ok(())
            }
        }
    }
}
