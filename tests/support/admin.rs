//! The operator's side: acts over the admin socket, reading over the listener, and the command line.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;
use wardent::base::net::Address;

use super::{client::RawClient, message::Response, wardent::Wardent};

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit status.
    pub(crate) status: i32,
    /// What it printed.
    pub(crate) out: String,
    /// What it complained about.
    pub(crate) err: String,
}

impl Ran {
    /// What it printed, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn request(method: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn status_and_json(response: &Response) -> (u16, Value) {
    let json = serde_json::from_slice(&response.body);
    let json = json.unwrap_or_else(|error| panic!("{error}: {response:?}"));
    (response.status, json)
}

impl Wardent {
    /// Asks over the admin socket, as the command line does.
    pub(crate) fn act(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let socket = Address::Unix(self.dir().join("admin.sock"));
        let response = RawClient::connect(&socket).ask(request(method, target, body));
        status_and_json(&response)
    }

    /// Asks over the admin listener.
    pub(crate) fn ask_listener(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let listener = Address::Tcp(self.admin());
        let response = RawClient::connect(&listener).ask(request(method, target, body));
        status_and_json(&response)
    }

    /// The status of an answer of the admin listener.
    pub(crate) fn status_of(&self, method: &str, target: &str) -> u16 {
        let listener = Address::Tcp(self.admin());
        RawClient::connect(&listener)
            .ask(request(method, target, ""))
            .status
    }

    /// All bans in force. Whatever was held against somebody before has been heard by then.
    pub(crate) fn bans(&self) -> Vec<Value> {
        let (status, listed) = self.act("GET", "/api/v1/bans?limit=1000", "");
        assert_eq!(status, 200, "{listed}");
        listed["bans"].as_array().unwrap().clone()
    }

    /// Bans somebody for an hour.
    pub(crate) fn ban(&self, target: &str) {
        let body = format!(r#"{{"target": "{target}", "for": "1h", "why": "test"}}"#);
        let (status, said) = self.act("POST", "/api/v1/bans", &body);
        assert_eq!(status, 201, "{target}: {said}");
    }

    /// A number of `/metrics`: the sum of all lines that begin so.
    pub(crate) fn metric(&self, beginning: &str) -> f64 {
        let listener = Address::Tcp(self.admin());
        let response = RawClient::connect(&listener).ask(request("GET", "/metrics", ""));
        let text = String::from_utf8(response.body).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(beginning));
        let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        numbers.sum()
    }

    /// Runs a command with this Wardent's configuration.
    pub(crate) fn command(&self, arguments: &[&str], input: &str) -> Ran {
        let config = self.dir().join("wardent.yaml");
        let mut child = Command::new(env!("CARGO_BIN_EXE_wardent"))
            .args(arguments)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads no input has closed it.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
