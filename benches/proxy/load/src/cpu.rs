//! CPU time of other processes.

use std::{
    fs, io,
    time::{Duration, Instant},
};

/// CPU time of the proxy and of this program, and the moment at which it was read.
pub(crate) struct Usage {
    pub(crate) at: Instant,
    pub(crate) proxy: Duration,
    pub(crate) load: Duration,
}

impl Usage {
    pub(crate) fn read(pids: &[u32]) -> io::Result<Self> {
        let proxy = pids
            .iter()
            .map(|pid| cpu_time(*pid))
            .sum::<io::Result<_>>()?;
        Ok(Self {
            at: Instant::now(),
            proxy,
            load: cpu_time(std::process::id())?,
        })
    }
}

/// Time on a core of all living threads of `pid`, exact to the nanosecond (proc(5), `schedstat`).
fn cpu_time(pid: u32) -> io::Result<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?;
    let mut total = Duration::ZERO;
    for thread in threads {
        // A thread may end between the listing and the reading; its time is then lost to both readings.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let on_core_ns = text.split(' ').next().and_then(|word| word.parse().ok());
        total += Duration::from_nanos(on_core_ns.unwrap_or(0));
    }
    Ok(total)
}
