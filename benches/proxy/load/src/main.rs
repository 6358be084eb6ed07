//! The clients and the application of a proxy under test, in one thread, so that one core serves both.
//!
//! With `--target` it keeps `--connections` keep-alive connections to the proxy busy, one request at a
//! time on each (a closed loop), answers what the proxy forwards to `--origin`, and prints one line of
//! JSON. Without `--target` it only answers, until it is ended. An answer other than 200, a wrong length
//! or a closed connection is an error: a proxy that refuses is fast, and its figures mean nothing.

mod clients;
mod connection;
mod cpu;
mod options;
mod origin;

use std::{error::Error, process::ExitCode};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use crate::{clients::Clients, options::Options, origin::Origin};

/// What can go wrong is told to a person and ends the program, so the text is all there is to it.
type Fallible<T> = Result<T, Box<dyn Error>>;

/// The listener's token; above it count the origin's connections, below it the clients'.
const LISTENER: u64 = 1 << 32;

/// So long nothing may happen while answers are owed. Generous, for a proxy that runs under valgrind.
const STALL: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Fallible<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut origin = Origin::bind(options, &epoll)?;
    let mut clients = Clients::connect(options, &epoll)?;
    let patience = options.target.map(|_| &STALL);
    let mut events = Vec::with_capacity(512);
    let mut scratch = vec![0; 256 * 1024];

    clients.start()?;
    while !clients.done() {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), patience)?;
        if events.is_empty() {
            return Err(format!("no answer for {} s, {clients}", STALL.tv_sec).into());
        }
        for event in &events {
            let (token, flags) = (event.data.u64(), event.flags);
            match token.checked_sub(LISTENER) {
                None => clients.ready(token as usize, flags, &mut scratch)?,
                Some(0) => origin.accept(&epoll)?,
                Some(above) => origin.ready(above as usize - 1, flags, &mut scratch)?,
            }
        }
    }
    if options.target.is_some() {
        println!("{}", clients.report()?);
    }
    Ok(())
}
