//! The floor: a proxy that only copies bytes, with one upstream connection for each client's.
//!
//! `floor LISTEN UPSTREAM`. No TCP proxy on the same kernel can cost less, so what a real one costs above
//! it is what that one's own work costs.

use std::{
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, epoll, poll},
};

const LISTENER: u64 = u64::MAX;

/// So long a peer may refuse to take bytes.
const STALL: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

fn main() -> Result<(), Box<dyn Error>> {
    let [listen, upstream] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "floor LISTEN UPSTREAM")?;
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch(&epoll, &listener, LISTENER)?;
    // Two of a pair stand side by side: the peer of 6 is 7, the peer of 7 is 6.
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(512);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => accept(&listener, &upstream, &epoll, &mut streams)?,
                token => {
                    let index = token as usize;
                    if copy(&streams[index], &streams[index ^ 1], &mut buffer).is_err() {
                        streams[index] = None;
                        streams[index ^ 1] = None;
                    }
                }
            }
        }
    }
}

fn watch(epoll: &OwnedFd, source: impl std::os::fd::AsFd, token: u64) -> io::Result<()> {
    let data = epoll::EventData::new_u64(token);
    Ok(epoll::add(epoll, source, data, epoll::EventFlags::IN)?)
}

fn accept(
    listener: &TcpListener,
    upstream: &str,
    epoll: &OwnedFd,
    streams: &mut Vec<Option<TcpStream>>,
) -> io::Result<()> {
    while let Ok((client, _)) = listener.accept() {
        let Ok(server) = TcpStream::connect(upstream) else {
            continue;
        };
        for stream in [client, server] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            watch(epoll, &stream, streams.len() as u64)?;
            streams.push(Some(stream));
        }
    }
    Ok(())
}

/// Moves what is there from one of a pair to the other.
///
/// # Errors
///
/// When either has closed, broken or stalled; the pair is then of no more use.
fn copy(from: &Option<TcpStream>, to: &Option<TcpStream>, buffer: &mut [u8]) -> io::Result<()> {
    let (Some(mut from), Some(mut to)) = (from.as_ref(), to.as_ref()) else {
        return Ok(());
    };
    let count = match from.read(buffer) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut full = [PollFd::new(&to, PollFlags::OUT)];
                if poll(&mut full, Some(&STALL))? == 0 {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
