//! A web server on the loopback interface, so that pages can be fetched without a network.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use concurrent_futures::ThreadPoolExecutor;

/// Starts the server, which runs until the program ends, and returns its address: `http://127.0.0.1:PORT`.
///
/// `/bytes/N` is a page of N bytes, `/delay/N` one that is sent after N milliseconds; there are no others.
pub(crate) fn serve() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = format!("http://{}", listener.local_addr()?);
    let pool = ThreadPoolExecutor::builder().name("server").build().map_err(io::Error::other)?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // The handle is not needed: a failed connection affects only its client.
            drop(pool.submit(move || answer(&connection)));
        }
    });
    Ok(address)
}

fn answer(mut connection: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(connection).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    // The headers are ignored, but must be read: closing a connection with unread bytes resets it.
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }
    let (status, page) = match page(&request) {
        Some(page) => ("200 OK", page),
        None => ("404 Not Found", b"There is no such page.\n".to_vec()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
    connection.write_all(head.as_bytes())?;
    connection.write_all(&page)
}

/// The page that is requested by, for example, `GET /bytes/300 HTTP/1.1`.
fn page(request: &str) -> Option<Vec<u8>> {
    let path = request.split(' ').nth(1)?;
    let (kind, number) = path.strip_prefix('/')?.split_once('/')?;
    let number: u32 = number.parse().ok()?;
    match kind {
        "bytes" => Some(vec![b'.'; number as usize]),
        "delay" => {
            thread::sleep(Duration::from_millis(number.into()));
            Some(format!("This took {number} ms.\n").into_bytes())
        }
        _ => None,
    }
}
