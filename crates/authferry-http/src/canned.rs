//! A test server that sends canned responses and records the requests.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// The server: one connection per response. It stops with the test's runtime.
pub(crate) struct Canned {
    pub(crate) url: Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    /// Sends each of `responses` in turn; an empty response closes the connection.
    pub(crate) async fn new(responses: Vec<String>) -> Self {
        Self::with(responses, drop).await
    }

    /// Like [`new`](Self::new), but keeps the connections open without reading further requests.
    pub(crate) async fn keeping(responses: Vec<String>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = move |stream| kept.lock().expect("no panic before").push(stream);
        Self::with(responses, keep).await
    }

    async fn with(responses: Vec<String>, done: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for response in responses {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a whole head"));
                }
                seen.lock()
                    .expect("no panic before")
                    .push(String::from_utf8(head).expect("text"));
                stream
                    .write_all(response.as_bytes())
                    .await
                    .expect("a reader");
                done(stream);
            }
            // The kept connections stay open as long as the runtime.
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

/// Returns a response with a body.
pub(crate) fn response(status: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}")
}

/// Returns a redirect.
pub(crate) fn redirect(status: &str, to: &str) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
