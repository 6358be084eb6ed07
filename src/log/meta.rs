//! Who a log is: `meta.properties` beside its partitions, `partition.metadata` in each of them.

use std::{io, path::Path};

use data_encoding::BASE64URL_NOPAD;

use super::checkpoint::{self, Unread};
use crate::base::disk::Disk;

pub(super) const META: &str = "meta.properties";
pub(super) const PARTITION: &str = "partition.metadata";

/// The version of `meta.properties` that is written. One below it is read, and written anew.
const META_VERSION: u32 = 1;
const PARTITION_VERSION: u32 = 0;

/// The node that wrote the log; Wardent is always the same one.
const NODE_ID: &str = "1";

/// What Kafka calls a Uuid: 16 bytes, told as 22 characters of base64url.
pub type Id = [u8; 16];

/// A new id. It does not begin with `-`, which tools take for an option.
///
/// # Errors
/// When the system gives no random bytes.
pub(super) fn new_id() -> io::Result<Id> {
    loop {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        if !text_of(&id).starts_with('-') {
            return Ok(id);
        }
    }
}

/// An id as Kafka tells it.
pub fn text_of(id: &Id) -> String {
    BASE64URL_NOPAD.encode(id)
}

fn id_of(text: &str) -> Option<Id> {
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .ok()?
        .try_into()
        .ok()
}

/// What `meta.properties` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The cluster this log is of.
    pub cluster_id: String,
    /// This directory.
    pub directory_id: String,
    /// Whether it was written by an older version, and has to be written anew.
    pub(super) is_old: bool,
}

impl Meta {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            cluster_id: text_of(&new_id()?),
            directory_id: text_of(&new_id()?),
            is_old: false,
        })
    }

    /// Reads it; none where it is not there.
    ///
    /// # Errors
    /// When it is of a later version, or a field is missing or foreign; the error names the field.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Unread> {
        let Some(text) = checkpoint::read(disk, &dir.join(META))? else {
            return Ok(None);
        };
        let field = |name: &str| value_of(&text, '=', name);
        let is_old = check_version(field("version"), META_VERSION)? < META_VERSION;
        // Version 0 has the node's id under its older name, and need not have the others.
        let node = field(if is_old { "broker.id" } else { "node.id" });
        match node {
            Some(NODE_ID) => {}
            None if is_old => {}
            None => return Err(missing("node.id")),
            Some(other) => {
                let what =
                    format!("`node.id` is {other}: the log is another node's, this is {NODE_ID}");
                return Err(Unread::Wrong(what));
            }
        }
        let id = |name: &str| match field(name) {
            Some(text) => Ok(text.to_owned()),
            None if is_old => Ok(text_of(&new_id()?)),
            None => Err(missing(name)),
        };
        Ok(Some(Self {
            cluster_id: id("cluster.id")?,
            directory_id: id("directory.id")?,
            is_old,
        }))
    }

    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let text = format!(
            "cluster.id={}\ndirectory.id={}\nnode.id={NODE_ID}\nversion={META_VERSION}\n",
            self.cluster_id, self.directory_id
        );
        checkpoint::write(disk, dir, META, &text)
    }
}

/// Reads the id of the topic that a partition's directory is of; none where it does not say.
///
/// # Errors
/// When it is of a later version, or a field is missing or none.
pub(super) fn read_topic_id(disk: &dyn Disk, dir: &Path) -> Result<Option<Id>, Unread> {
    let Some(text) = checkpoint::read(disk, &dir.join(PARTITION))? else {
        return Ok(None);
    };
    check_version(value_of(&text, ':', "version"), PARTITION_VERSION)?;
    let id = value_of(&text, ':', "topic_id").ok_or_else(|| missing("topic_id"))?;
    match id_of(id) {
        Some(id) => Ok(Some(id)),
        None => Err(Unread::Wrong(format!(
            "`topic_id` is {id:?}: it should be 22 characters"
        ))),
    }
}

pub(super) fn write_topic_id(disk: &dyn Disk, dir: &Path, id: &Id) -> io::Result<()> {
    let text = format!("version: {PARTITION_VERSION}\ntopic_id: {}", text_of(id));
    checkpoint::write(disk, dir, PARTITION, &text)
}

fn value_of<'a>(text: &'a str, between: char, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter(|line| !line.starts_with(['#', '!']));
    let mut pairs = lines.filter_map(|line| line.split_once(between));
    pairs
        .find(|(own, _)| own.trim() == name)
        .map(|(_, value)| value.trim())
}

fn check_version(version: Option<&str>, newest: u32) -> Result<u32, Unread> {
    let version = version.ok_or_else(|| missing("version"))?;
    match version.parse() {
        Ok(number) if number <= newest => Ok(number),
        Ok(_) => Err(Unread::Newer(version.to_owned())),
        Err(_) => Err(Unread::Wrong(format!(
            "`version` is {version:?}: it should be a number"
        ))),
    }
}

fn missing(field: &str) -> Unread {
    Unread::Wrong(format!("`{field}` is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::System;

    fn read(text: &str) -> Result<Meta, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(META), text).unwrap();
        match Meta::read(&System, dir.path()) {
            Ok(meta) => Ok(meta.unwrap()),
            Err(Unread::Newer(version)) => Err(format!("newer {version}")),
            Err(Unread::Wrong(what)) => Err(what),
            Err(Unread::Io(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::new().unwrap();
        meta.write(&System, dir.path()).unwrap();
        assert_eq!(Meta::read(&System, dir.path()).unwrap(), Some(meta));
        let id = new_id().unwrap();
        write_topic_id(&System, dir.path(), &id).unwrap();
        assert_eq!(read_topic_id(&System, dir.path()).unwrap(), Some(id));
    }

    #[test]
    fn what_kafka_wrote_is_read() {
        let kafka = "#\n#Sat Nov 21 18:00:00 UTC 2026\ncluster.id=5L6g3nShT-eMCtK--X86sw\n\
            directory.id=4mm7Q0VOQpeSvqfVZlGhHA\nnode.id=1\nversion=1\n";
        assert_eq!(read(kafka).unwrap().cluster_id, "5L6g3nShT-eMCtK--X86sw");
    }

    #[test]
    fn the_version_before_is_read_and_the_one_after_refused() {
        assert!(read("version=0\nbroker.id=1\n").unwrap().is_old);
        let newer = "version=2\nnode.id=1\ncluster.id=a\ndirectory.id=b\n";
        assert_eq!(read(newer).unwrap_err(), "newer 2");
    }

    #[test]
    fn a_field_that_is_missing_or_foreign_is_named() {
        let cases = [
            ("", "`version` is missing"),
            (
                "version=one\n",
                "`version` is \"one\": it should be a number",
            ),
            ("version=1\n", "`node.id` is missing"),
            (
                "version=1\nnode.id=7\n",
                "`node.id` is 7: the log is another node's, this is 1",
            ),
            ("version=1\nnode.id=1\n", "`cluster.id` is missing"),
            (
                "version=1\nnode.id=1\ncluster.id=a\n",
                "`directory.id` is missing",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_topic_id_is_22_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PARTITION);
        std::fs::write(&path, "version: 0\ntopic_id: 4mm7Q0VOQpeSvqfVZlGhHA").unwrap();
        assert!(read_topic_id(&System, dir.path()).unwrap().is_some());
        std::fs::write(&path, "version: 0\ntopic_id: short").unwrap();
        assert!(matches!(
            read_topic_id(&System, dir.path()),
            Err(Unread::Wrong(what)) if what.starts_with("`topic_id` is \"short\"")
        ));
    }
}
