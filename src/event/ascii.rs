//! JSON in printable ASCII alone: what a stranger or an operator wrote moves no terminal's cursor.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

/// Appends `value` as JSON without spaces or line ends; what is not ASCII is escaped.
pub fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    let mut writer = Serializer::with_formatter(out, Ascii);
    // Writing to memory does not fail, and events have no keys that are no text.
    let _ = value.serialize(&mut writer);
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let is_plain = |byte: &u8| (0x20..0x7f).contains(byte);
        if fragment.as_bytes().iter().all(is_plain) {
            return out.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() && !c.is_ascii_control() {
                write!(out, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_ascii_and_reads_back() {
        let hostile = "a\"b\\c\u{1b}[2J\u{7f}\u{9b}é\u{202e}\u{1f600}\n";
        let mut out = Vec::new();
        write_json(&hostile, &mut out);
        assert!(out.iter().all(|byte| (0x20..0x7f).contains(byte)));
        let read: String = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, hostile);
    }
}
