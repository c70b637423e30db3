//! Traces the system calls of authferry, and makes one of them fail or kills the process before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    calls,
    position::{Call, Fault, Position},
    tracee::{Kind, Tracee, is_of_the_scene, kind_of, owner_of},
};

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) calls: Vec<Call>,
    /// The call at which the fault happened.
    pub(crate) hit: Option<String>,
    /// The exit code of the root process; 128 + n for signal n.
    pub(crate) code: Option<i32>,
    /// The processes that aborted.
    pub(crate) aborted: Vec<String>,
}

/// What is traced, and for which fault.
pub(crate) struct Tracer<'a> {
    pub(crate) root: Pid,
    pub(crate) program: &'a Path,
    /// The folder that all processes of the scene have in their environment.
    pub(crate) scene: &'a Path,
    pub(crate) fault: Option<(&'a Position, Fault)>,
    tracees: BTreeMap<Pid, Tracee>,
    /// Children that stopped before their parent's fork was seen to return.
    early: BTreeSet<Pid>,
    /// How many threads each process had.
    threads: BTreeMap<Pid, usize>,
    /// How many children each process had.
    children: BTreeMap<String, usize>,
    foreign: BTreeMap<i32, bool>,
    trace: Trace,
}

const OPTIONS: Options = Options::PTRACE_O_TRACESYSGOOD
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACECLONE)
    .union(Options::PTRACE_O_TRACEEXEC)
    .union(Options::PTRACE_O_EXITKILL);

impl<'a> Tracer<'a> {
    /// Attaches to the root process, a child of this thread. Traces the programs that it executes,
    /// and not the root process itself.
    pub(crate) fn attach(
        root: Pid,
        program: &'a Path,
        scene: &'a Path,
        fault: Option<(&'a Position, Fault)>,
    ) -> io::Result<Self> {
        ptrace::seize(root, OPTIONS)?;
        let mut tracer = Self {
            root,
            program,
            scene,
            fault,
            tracees: BTreeMap::new(),
            early: BTreeSet::new(),
            threads: BTreeMap::new(),
            children: BTreeMap::new(),
            foreign: BTreeMap::new(),
            trace: Trace::default(),
        };
        tracer
            .tracees
            .insert(root, Tracee::new(root, Kind::Other, 0));
        Ok(tracer)
    }

    /// Runs until every traced process has ended, or the root process has ended and the fault has
    /// happened.
    pub(crate) fn follow(mut self) -> io::Result<Trace> {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while !(self.tracees.is_empty() && self.trace.code.is_some()) {
            match waitpid(None, Some(flags)) {
                Ok(status) => self.handle_stop(status)?,
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.trace)
    }

    fn handle_stop(&mut self, status: WaitStatus) -> io::Result<()> {
        match status {
            WaitStatus::Exited(pid, code) => self.ended(pid, code, None),
            WaitStatus::Signaled(pid, signal, _) => {
                self.ended(pid, 128 + signal as i32, Some(signal));
            }
            WaitStatus::PtraceSyscall(pid) => return self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, event) => self.handle_event(pid, event),
            WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
        Ok(())
    }

    fn ended(&mut self, pid: Pid, code: i32, signal: Option<Signal>) {
        let tracee = self.tracees.remove(&pid);
        if let (Some(tracee), Some(Signal::SIGABRT)) = (&tracee, signal)
            && tracee.owner == pid
        {
            self.trace.aborted.push(tracee.kind.name());
        }
        if pid != self.root {
            return;
        }
        self.trace.code = Some(code);
        if self.trace.hit.is_some() {
            // The next job starts while other processes still run. ptrace detaches only from a
            // stopped process.
            for &pid in self.tracees.keys() {
                ptrace::interrupt(pid).ok();
            }
        }
    }

    /// Resumes a process. If it has ended meanwhile, the next wait reports it.
    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        let is_over = self.trace.hit.is_some();
        let is_traced = self
            .tracees
            .get(&pid)
            .is_some_and(|it| it.kind != Kind::Other);
        if is_over && self.trace.code.is_some() {
            self.detach(pid, signal);
        } else if is_traced && !is_over {
            ptrace::syscall(pid, signal).ok();
        } else {
            ptrace::cont(pid, signal).ok();
        }
    }

    fn detach(&mut self, pid: Pid, signal: Option<Signal>) {
        ptrace::detach(pid, signal).ok();
        self.tracees.remove(&pid);
    }

    fn handle_event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                let Ok(child) = ptrace::getevent(pid) else {
                    return;
                };
                self.register_child(pid, Pid::from_raw(i32::try_from(child).unwrap_or_default()));
                self.resume(pid, None);
            }
            libc::PTRACE_EVENT_EXEC => {
                let kind = kind_of(pid, self.program);
                if kind == Kind::Other && pid != self.root {
                    self.detach(pid, None);
                    return;
                }
                let mut tracee = Tracee::new(pid, kind, 0);
                // The call continues until its end.
                tracee.is_inside = true;
                self.tracees.insert(pid, tracee);
                self.threads.insert(pid, 1);
                self.resume(pid, None);
            }
            _ if self.tracees.contains_key(&pid) => self.resume(pid, None),
            _ => drop(self.early.insert(pid)),
        }
    }

    fn register_child(&mut self, parent: Pid, child: Pid) {
        let Some(above) = self.tracees.get(&parent) else {
            return;
        };
        let owner = owner_of(child).unwrap_or(child);
        let tracee = if owner == above.owner {
            let number = self.threads.entry(owner).or_insert(1);
            *number += 1;
            Tracee::new(owner, above.kind.clone(), *number - 1)
        } else {
            let kind = match &above.kind {
                Kind::Other => Kind::Other,
                Kind::Traced(name) => {
                    let number = self.children.entry(name.clone()).or_insert(0);
                    *number += 1;
                    Kind::Traced(format!("{name}>{number}"))
                }
            };
            Tracee::new(owner, kind, 0)
        };
        self.tracees.insert(child, tracee);
        if self.early.remove(&child) {
            self.resume(child, None);
        }
    }

    fn at_call(&mut self, pid: Pid) -> io::Result<()> {
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            return Ok(());
        };
        tracee.is_inside = !tracee.is_inside;
        if !tracee.is_inside {
            if let Some(errno) = tracee.failing.take()
                && let Ok(mut registers) = ptrace::getregs(pid)
            {
                registers.rax = i64::from(-(errno as i32)).cast_unsigned();
                ptrace::setregs(pid, registers).ok();
            }
            self.resume(pid, None);
            return Ok(());
        }
        // If it was killed meanwhile, the next wait reports it.
        if let Ok(registers) = ptrace::getregs(pid) {
            self.enter_call(pid, registers)?;
        }
        let is_failing = |it: &Tracee| it.failing.is_some();
        if self.tracees.get(&pid).is_some_and(is_failing) {
            // Continue to the end of the call, where it gets its result.
            ptrace::syscall(pid, None).ok();
        } else {
            self.resume(pid, None);
        }
        Ok(())
    }

    /// A thread is about to make a call.
    fn enter_call(&mut self, pid: Pid, mut registers: libc::user_regs_struct) -> io::Result<()> {
        let number = registers.orig_rax.cast_signed();
        let (scene, foreign) = (self.scene, &mut self.foreign);
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            return Ok(());
        };
        let is_foreign = |process: i32| {
            *foreign
                .entry(process)
                .or_insert_with(|| !is_of_the_scene(process, scene))
        };
        if calls::is_excluded(number) || tracee.repeats_access(pid, &registers, is_foreign) {
            return Ok(());
        }
        tracee.calls += 1;
        let position = Position {
            process: tracee.kind.name(),
            thread: tracee.thread,
            number: tracee.calls,
        };
        let name = calls::name(number);
        match self.fault {
            None => self.trace.calls.push(Call { position, name }),
            Some((at, fault)) if self.trace.hit.is_none() && *at == position => {
                self.trace.hit = Some(name);
                match fault {
                    Fault::Kill => {
                        kill(tracee.owner, Signal::SIGKILL)?;
                    }
                    Fault::Fail(errno) => {
                        tracee.failing = Some(errno);
                        // No call has this number, so the system does nothing.
                        registers.orig_rax = u64::MAX;
                        ptrace::setregs(pid, registers)?;
                    }
                }
            }
            Some(_) => {}
        }
        Ok(())
    }
}
