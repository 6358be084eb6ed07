//! One house, twelve floors. A room imports only from floors below its own;
//! rooms on the same floor do not know each other. `tests/tidy.rs` checks it.

// Ground: values without opinions.
pub mod base;

// How the house talks about itself.
pub mod telemetry;

// Rooms that each know one thing.
pub mod bots;
pub mod client;
pub mod event;
pub mod log;
pub mod secret;

// Every client's clocks.
pub mod limit;

// The one who decides about bans.
pub mod owner;

// One question per file.
pub mod guard;

// What other nodes say and hear; where events go and how they are read back; how Kafka's clients read and
// write the log; what schemas there are.
pub mod cluster;
pub mod kafka;
pub mod registry;
pub mod sink;

// The life of one request; and once more, of all that are in the log.
pub mod proxy;
pub mod replay;

// Metrics, health and acts.
pub mod admin;

// The operator's words, turned into the types above.
pub mod config;

// What the log has, carried to a Kafka cluster, in a process of its own.
#[cfg(feature = "cluster")]
pub mod mirror;

// Everything wired together.
pub mod app;
