//! A connection that gives up on who does not read.
//!
//! An answer, or an event, waits for its reader in the socket's own buffer and nowhere else; when nothing of it has
//! been taken for a while the connection ends, and its seat is another's (R42).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::seats::Pulse;
use crate::clock::Clock;

/// As long as a body may take to come. Whoever was dropped from the events goes on where it was with `Last-Event-ID`.
const READ_WITHIN: Duration = Duration::from_secs(10);

pub struct Stream {
    stream: UnixStream,
    clock: Clock,
    pulse: Pulse,
    /// Runs while something waits to be written.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stream {
    pub fn new(stream: UnixStream, clock: Clock, pulse: Pulse) -> Stream {
        Stream { stream, clock, pulse, waiting: None }
    }

    /// What came of a write, and an error once it has waited too long.
    fn patient(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            self.pulse.beats(self.clock.mono());
            return written;
        }
        let clock = &self.clock;
        let waiting = self.waiting.get_or_insert_with(|| {
            let clock = clock.clone();
            Box::pin(async move { clock.sleep(READ_WITHIN).await })
        });
        waiting.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.pulse.beats(self.clock.mono());
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patient(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.patient(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
