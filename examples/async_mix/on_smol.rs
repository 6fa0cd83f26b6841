//! Uses smol as the runtime: its reactor, and related crates.

use std::future::Future;
use std::io;
use std::process::{Command, Output};

use async_signal::{Signal, Signals};
use smol::net::TcpStream;
use smol::prelude::*;

use crate::Runtime;

pub(crate) struct Smol;

impl Runtime for Smol {
    fn block_on<T>(main: impl Future<Output = T>) -> io::Result<T> {
        Ok(smol::block_on(main))
    }

    async fn exchange(address: &str, request: &str) -> io::Result<String> {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn output(command: Command) -> io::Result<Output> {
        smol::process::Command::from(command).output().await
    }

    fn sigusr1() -> io::Result<impl Future<Output = ()>> {
        let mut signals = Signals::new([Signal::Usr1])?;
        Ok(async move {
            signals.next().await;
        })
    }
}
