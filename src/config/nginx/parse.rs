//! An nginx configuration as directives with their places: what `nginx -T` would read.
//!
//! The syntax is that of `ngx_conf_file.c`: words, quotes, `;`, blocks and `#`. Includes are followed,
//! `*` in the name of their last part is a wildcard, relative ones start from the first file's folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::super::{
    Problem, Severity,
    report::{Excerpt, shown, told},
};

/// Files and bytes that are read at most, and how deep blocks and includes may be.
const FILES_MAX: usize = 1_000;
const BYTES_MAX: usize = 16 << 20;
const DEPTH_MAX: usize = 32;

/// A file that was read.
#[derive(Debug)]
struct File {
    path: PathBuf,
    text: String,
}

/// Where something stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    file: Arc<File>,
    line: usize,
    column: usize,
    width: usize,
}

impl Place {
    /// What somebody should look at here, and what would be right.
    pub(super) fn warning(&self, what: impl std::fmt::Display, help: impl Into<String>) -> Problem {
        let line = self.file.text.lines().nth(self.line.saturating_sub(1));
        Problem {
            severity: Severity::Warning,
            file: shown(&self.file.path.display().to_string()),
            line: self.line,
            column: self.column,
            key: String::new(),
            what: told(&what),
            help: Some(help.into()),
            excerpt: line.map(|line| Excerpt::around(line, self.column, self.width)),
        }
    }
}

/// One directive: `name args… ;` or `name args… { block }`.
#[derive(Debug, Clone)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
    pub(super) at: Place,
}

impl Directive {
    /// The argument of this number, from 0.
    pub(super) fn arg(&self, nth: usize) -> &str {
        self.args.get(nth).map_or("", String::as_str)
    }

    /// The directives of its block.
    pub(super) fn inner(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Reads a configuration with all it includes.
///
/// # Errors
/// When a file cannot be read, or is none of nginx's.
pub(super) fn read(path: &Path) -> Result<Vec<Directive>, String> {
    let mut reader = Reader {
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        files: 0,
        bytes: 0,
    };
    reader.file(path, 0)
}

struct Reader {
    folder: PathBuf,
    files: usize,
    bytes: usize,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<Vec<Directive>, String> {
        let name = shown(&path.display().to_string());
        self.files += 1;
        if self.files > FILES_MAX || depth > DEPTH_MAX {
            return Err(format!("{name}: one include too many"));
        }
        let unreadable = |error: io::Error| format!("{name}: cannot be read: {error}");
        let length = fs::metadata(path).map_err(unreadable)?.len();
        self.bytes += usize::try_from(length).unwrap_or(BYTES_MAX);
        if self.bytes > BYTES_MAX {
            return Err(format!("{name}: more than {} MiB", BYTES_MAX >> 20));
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        let file = Arc::new(File {
            path: path.to_owned(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        });
        let mut tokens = tokens(&file).map_err(|(line, what)| format!("{name}:{line}: {what}"))?;
        tokens.reverse();
        self.block(&mut tokens, depth, true).map_err(|what| {
            if what.starts_with(&name) {
                what
            } else {
                format!("{name}: {what}")
            }
        })
    }

    /// The directives up to the end of a block, or of the file where `is_file`.
    fn block(
        &mut self,
        tokens: &mut Vec<(Token, Place)>,
        depth: usize,
        is_file: bool,
    ) -> Result<Vec<Directive>, String> {
        if depth > DEPTH_MAX {
            return Err("blocks are too deep".to_owned());
        }
        let mut directives = Vec::new();
        loop {
            let Some((token, at)) = tokens.pop() else {
                return match is_file {
                    true => Ok(directives),
                    false => Err("a `}` is missing at its end".to_owned()),
                };
            };
            let name = match token {
                Token::Word(name) => name,
                Token::Close if !is_file => return Ok(directives),
                Token::Close | Token::Open | Token::End => {
                    return Err(format!("line {}: a directive is missing", at.line));
                }
            };
            let mut directive = Directive {
                name,
                args: Vec::new(),
                block: None,
                at,
            };
            loop {
                match tokens.pop() {
                    Some((Token::Word(word), at)) => {
                        if at.line == directive.at.line {
                            directive.at.width = at.column + at.width - directive.at.column;
                        }
                        directive.args.push(word);
                    }
                    Some((Token::End, _)) => break,
                    Some((Token::Open, _)) => {
                        directive.block = Some(self.block(tokens, depth + 1, false)?);
                        break;
                    }
                    Some((Token::Close, at)) => {
                        return Err(format!("line {}: a `;` is missing before this", at.line));
                    }
                    None => return Err("a `;` is missing at its end".to_owned()),
                }
            }
            if directive.name == "include" {
                for path in self.included(directive.arg(0)) {
                    directives.extend(self.file(&path, depth + 1)?);
                }
            } else {
                directives.push(directive);
            }
        }
    }

    /// The files that an include names, in their order.
    fn included(&self, pattern: &str) -> Vec<PathBuf> {
        let path = self.folder.join(pattern);
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let Some((head, tail)) = name.as_deref().and_then(|name| name.split_once('*')) else {
            return vec![path];
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned());
                name.is_some_and(|name| {
                    // As the shell: `*` takes no leading dot.
                    name.len() >= head.len() + tail.len()
                        && name.starts_with(head)
                        && name.ends_with(tail)
                        && !(head.is_empty() && name.starts_with('.'))
                })
            })
            .collect();
        found.sort();
        found
    }
}

#[derive(Debug)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// The tokens of a file, or the line of what is none.
fn tokens(file: &Arc<File>) -> Result<Vec<(Token, Place)>, (usize, &'static str)> {
    let mut found = Vec::new();
    let mut chars = file.text.chars().peekable();
    let (mut line, mut column) = (1, 1);
    // One step on, by lines and columns.
    let step = |c: char, line: &mut usize, column: &mut usize| match c {
        '\n' => {
            *line += 1;
            *column = 1;
        }
        _ => *column += 1,
    };
    while let Some(&c) = chars.peek() {
        let (at_line, at_column) = (line, column);
        let place = |width: usize| Place {
            file: Arc::clone(file),
            line: at_line,
            column: at_column,
            width,
        };
        if c.is_whitespace() || matches!(c, ';' | '{' | '}') {
            chars.next();
            step(c, &mut line, &mut column);
            match c {
                ';' => found.push((Token::End, place(1))),
                '{' => found.push((Token::Open, place(1))),
                '}' => found.push((Token::Close, place(1))),
                _ => {}
            }
            continue;
        }
        if c == '#' {
            while chars.next_if(|&c| c != '\n').is_some() {}
            continue;
        }
        let quote = matches!(c, '"' | '\'').then_some(c);
        if quote.is_some() {
            chars.next();
            step(c, &mut line, &mut column);
        }
        let mut word = String::new();
        let mut is_closed = quote.is_none();
        while let Some(&c) = chars.peek() {
            let is_over = match quote {
                Some(quote) => c == quote,
                // `${name}` is part of a word.
                None => c.is_whitespace() || c == ';' || (c == '{' && !word.ends_with('$')),
            };
            if is_over && quote.is_none() {
                break;
            }
            chars.next();
            step(c, &mut line, &mut column);
            if is_over {
                is_closed = true;
                break;
            }
            if c == '\\'
                && let Some(escaped) = chars.next()
            {
                step(escaped, &mut line, &mut column);
                if !matches!(escaped, '"' | '\'' | ' ' | ';' | '\\') {
                    word.push('\\');
                }
                word.push(escaped);
                continue;
            }
            word.push(c);
        }
        if !is_closed {
            return Err((at_line, "this quote is not closed"));
        }
        let width = match at_line == line {
            true => column - at_column,
            false => 1,
        };
        found.push((Token::Word(word), place(width)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Directive>, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.inc"), "gzip on;\n").unwrap();
        fs::write(dir.path().join("b.inc"), "etag off;").unwrap();
        let path = dir.path().join("nginx.conf");
        fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn directives_are_read_with_their_blocks_quotes_and_includes() {
        let text = "\
# a comment; { with things
http {
  include *.inc;
  map $a $b { default \"x;y\"; ~^/(\\d+)$ '{'; }
  server { listen 80; location ~ \\.php$ { return 200 \"a \\\" b\"; } set ${x} 1; }
}
";
        let read = all(text).unwrap();
        assert_eq!(read.len(), 1);
        let http = read[0].inner();
        let names: Vec<_> = http.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["gzip", "etag", "map", "server"]);
        assert_eq!(http[2].inner()[0].args, ["x;y"]);
        let location = &http[3].inner()[1];
        assert_eq!(location.args, ["~", "\\.php$"]);
        assert_eq!(location.inner()[0].arg(1), "a \" b");
        assert_eq!(http[3].inner()[2].args, ["${x}", "1"]);
        let problem = location.at.warning("what", "help");
        assert_eq!((problem.line, problem.column), (5, 23));
        let excerpt = problem.excerpt.unwrap();
        assert!(excerpt.text.starts_with("  server { listen 80;"));
    }

    #[test]
    fn what_nginx_would_refuse_is_told_with_its_line() {
        for (text, words) in [
            ("http {\n", "a `}` is missing at its end"),
            ("a b", "a `;` is missing at its end"),
            ("http {\n a }\n", "line 2: a `;` is missing before this"),
            ("}", "line 1: a directive is missing"),
            ("a \"b", ":1: this quote is not closed"),
            ("include missing.conf;", "missing.conf: cannot be read"),
        ] {
            let error = all(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        assert!(all("include nginx.conf;").unwrap_err().contains("too many"));
    }
}
