//! A proxy connection that a test can hold or cut at a chosen moment.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The interval between checks for new connections.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A loopback port that forwards to a server, in pieces: the bytes of one read. It forwards a piece
/// unchanged or not at all, so the bytes may be encrypted.
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// The direction of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A request, or a part of one.
    ToServer,
    /// A reply, or a part of one.
    ToClient,
}

/// What the wire does with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireAction {
    /// Forwards it.
    Pass,
    /// Holds it and every later piece of its connection; none of them arrives.
    Hold,
}

impl Wire {
    /// Forwards to a server. At first everything passes.
    ///
    /// # Panics
    ///
    /// If the loopback interface cannot be used.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            happened: Condvar::new(),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Returns the address that replaces the server's.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on calls `judge` with each piece's direction and length before forwarding it.
    pub fn judge(&self, judge: impl Fn(Direction, usize) -> WireAction + Send + Sync + 'static) {
        self.shared.lock().judge = Some(Arc::new(judge));
    }

    /// Waits until a piece is held.
    ///
    /// # Panics
    ///
    /// If no piece is held within the time limit.
    #[track_caller]
    pub fn wait_until_held(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !state.held {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing was held within {limit:?}");
            (state, _) = self
                .shared
                .happened
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Closes every connection and drops the held pieces, as when a server ends. On new connections
    /// everything passes.
    pub fn lose(&self) {
        let mut state = self.shared.lock();
        state.judge = None;
        state.held = false;
        for stream in state.streams.drain(..) {
            // It may have ended already.
            drop(stream.shutdown(Shutdown::Both));
        }
        state.losses += 1;
        self.shared.happened.notify_all();
    }

    /// Like [`Wire::lose`], but accepts no new connection, as if the server's machine had gone.
    pub fn cut(&mut self) {
        self.shared.lock().is_cut = true;
        self.lose();
        // Wait, so that the port is closed when the test continues.
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({} to {})", self.address, self.shared.server)
    }
}

type Judge = dyn Fn(Direction, usize) -> WireAction + Send + Sync;

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    happened: Condvar,
}

#[derive(Default)]
struct State {
    judge: Option<Arc<Judge>>,
    held: bool,
    /// How often [`Wire::lose`] was called.
    losses: u32,
    is_cut: bool,
    streams: Vec<TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while !self.lock().is_cut {
            match listener.accept() {
                // If the server refuses the connection, close the client's too, as the server's
                // port would.
                Ok((client, _)) => drop(self.connect(client)),
                Err(_) => thread::sleep(POLL_INTERVAL),
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        let server = TcpStream::connect(self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.lock().streams.push(stream.try_clone()?);
        }
        for (way, from, to) in [
            (
                Direction::ToServer,
                client.try_clone()?,
                server.try_clone()?,
            ),
            (Direction::ToClient, server, client),
        ] {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                // The pump closes both ends, whether it succeeds or fails.
                drop(shared.pump(way, &from, &to));
                drop(from.shutdown(Shutdown::Both));
                drop(to.shutdown(Shutdown::Both));
            });
        }
        Ok(())
    }

    fn pump(&self, way: Direction, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        loop {
            let length = from.read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            let (judge, losses) = {
                let state = self.lock();
                (state.judge.clone(), state.losses)
            };
            if judge.is_some_and(|judge| judge(way, length) == WireAction::Hold) {
                self.hold(losses);
                return Ok(());
            }
            to.write_all(&piece[..length])?;
        }
    }

    /// Waits until [`Wire::lose`] drops the held pieces.
    fn hold(&self, losses: u32) {
        let mut state = self.lock();
        state.held = state.losses == losses;
        self.happened.notify_all();
        while state.losses == losses {
            state = self
                .happened
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that echoes its input.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut piece = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    // The wire may be cut.
                    drop(stream.write_all(&piece[..length]));
                }
            }
        });
        address
    }

    #[test]
    fn held_bytes_never_arrive_and_a_cut_closes_the_port() {
        let mut wire = Wire::to(echo());
        let say = |text: &[u8; 3]| {
            let mut client = TcpStream::connect(wire.address()).expect("a wire");
            client.write_all(text).expect("a wire");
            client
        };
        let hears = |mut client: TcpStream| {
            let mut reply = [0; 3];
            client
                .read_exact(&mut reply)
                .is_ok_and(|()| reply != [0; 3])
        };
        assert!(hears(say(b"one")));
        for held in [Direction::ToServer, Direction::ToClient] {
            wire.judge(move |way, length| {
                if way == held && length == 3 {
                    WireAction::Hold
                } else {
                    WireAction::Pass
                }
            });
            let client = say(b"two");
            wire.wait_until_held(Duration::from_secs(10));
            wire.lose();
            assert!(!hears(client));
            assert!(hears(say(b"one")));
        }
        wire.cut();
        assert!(TcpStream::connect(wire.address()).is_err());
    }
}
