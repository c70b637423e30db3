//! A server that gives the answers it was told to, and keeps what it was sent.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// The server: one connection for each answer. It ends with the test's runtime.
pub(crate) struct Canned {
    pub(crate) url: Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    /// Answers with each of `answers` in turn; an empty one breaks the connection.
    pub(crate) async fn new(answers: Vec<String>) -> Self {
        Self::with(answers, drop).await
    }

    /// The same, but the connections stay open, and nothing more is read from them.
    pub(crate) async fn keeping(answers: Vec<String>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = move |stream| kept.lock().expect("no panic before").push(stream);
        Self::with(answers, keep).await
    }

    async fn with(answers: Vec<String>, done: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a whole head"));
                }
                seen.lock()
                    .expect("no panic before")
                    .push(String::from_utf8(head).expect("text"));
                stream.write_all(answer.as_bytes()).await.expect("a reader");
                done(stream);
            }
            // What was kept stays open as long as the runtime.
            std::future::pending::<()>().await;
            drop(done);
        });
        Self {
            url: format!("http://127.0.0.1:{port}/here")
                .parse()
                .expect("an address"),
            requests,
        }
    }

    /// Returns the heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic before").clone()
    }
}

/// An answer with a body.
pub(crate) fn answer(status: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}")
}

/// An answer that points elsewhere.
pub(crate) fn redirect(status: &str, to: &str) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
