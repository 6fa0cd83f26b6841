//! Uses tokio as the runtime, with one thread.

use std::future::Future;
use std::io;
use std::process::{Command, Output};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::Runtime;

pub(crate) struct Tokio;

impl Runtime for Tokio {
    fn block_on<T>(main: impl Future<Output = T>) -> io::Result<T> {
        Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(main))
    }

    async fn exchange(address: &str, request: &str) -> io::Result<String> {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn output(command: Command) -> io::Result<Output> {
        tokio::process::Command::from(command).output().await
    }

    fn sigusr1() -> io::Result<impl Future<Output = ()>> {
        let mut signals = signal(SignalKind::user_defined1())?;
        Ok(async move {
            signals.recv().await;
        })
    }
}
