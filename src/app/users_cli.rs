//! `wardent log users`: who may log in to the Kafka listener, and what they may do.
//!
//! A password does not leave this process: what is sent is what is to be kept of it.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    StartError,
    admin_cli::{Ended, ask, encoded, meaning, print_table, printable, warn},
    cli::{Output, tell, tell_json},
    client::Running,
};
use crate::{
    admin::kafka_users::ToBe,
    config::{
        self,
        wardent::{self, Document},
    },
    kafka::{
        sasl::{Credential, Scram},
        users::{Listed, Rights, Shown},
        written_credential,
    },
    secret::generate,
};

const API: &str = "/api/v1/log/users";

/// Bytes of a password at least: who guesses is slowed down, but has time.
const PASSWORD_BYTES_MIN: usize = 8;

/// And at most.
const PASSWORD_BYTES_MAX: u64 = 1_024;

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// List the users and what each may do.
    #[command(after_help = "Example:\n  wardent log users list --output json")]
    List,
    /// Add a user; without --password-file its password is made, and shown this once.
    #[command(after_help = "Examples:
  wardent log users add reader --read wardent.http.access --group reader-
  wardent log users add app --read 'orders*' --write 'orders*' --group app-
  wardent log users add ops --admin --password-file - < password\n
A topic is a name, 'orders*' for all that begin so, or '*' for all. Who writes to topics may make
them; Wardent's own are written by Wardent alone. Whoever commits offsets needs --group.")]
    Add {
        /// What it is called.
        name: String,
        /// A topic it may read; may be given several times.
        #[arg(long, value_name = "TOPIC", num_args = 1..)]
        read: Vec<String>,
        /// A topic it may write to.
        #[arg(long, value_name = "TOPIC", num_args = 1..)]
        write: Vec<String>,
        /// How the names of the consumer groups begin that it may use.
        #[arg(long, value_name = "PREFIX", num_args = 1..)]
        group: Vec<String>,
        /// It may do everything that clients may do: users, rights, quotas, topics.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Remove a user and all it may do.
    #[command(after_help = "Example:\n  wardent log users remove reader\n
What it has open stays open, and may do nothing any more.")]
    Remove {
        /// Whom.
        name: String,
    },
    /// Give a user another password.
    #[command(after_help = "Examples:\n  wardent log users passwd reader
  wardent log users passwd reader --password-file reader.password")]
    Passwd {
        /// Whom.
        name: String,
        #[command(flatten)]
        password: PasswordArguments,
    },
}

#[derive(Debug, Args)]
pub(super) struct PasswordArguments {
    /// Where its password is, one line; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The mechanism it logs in by; those of `log.sasl` when left out.
    #[arg(long, value_name = "MECHANISM", value_parser = mechanism, num_args = 1..)]
    mechanism: Vec<Scram>,
}

fn mechanism(word: &str) -> Result<Scram, String> {
    let names = "SCRAM-SHA-256 and SCRAM-SHA-512; a password of either serves PLAIN as well";
    Scram::of_name(&word.to_uppercase()).ok_or_else(|| format!("there are {names}"))
}

/// Does it, and gives the exit status.
pub(super) fn run(command: &UsersCommand, config: &Path, output: Output) -> ExitCode {
    let document = match config::load_wardent(config) {
        Ok(document) => document,
        Err(report) => return Ended::Config(StartError::Config(report)).told(output),
    };
    let done = Running::behind(&document.admin.socket)
        .map_err(Ended::Failed)
        .and_then(|running| carry_out(command, &document, &running, output));
    done.unwrap_or_else(|ended| ended.told(output))
}

fn carry_out(
    command: &UsersCommand,
    document: &Document,
    running: &Running<'_>,
    output: Output,
) -> Result<ExitCode, Ended> {
    match command {
        UsersCommand::List => {
            let listed: Listed = meaning(&ask(running, Method::GET, API, None)?)?;
            print_list(&listed, output)?;
        }
        UsersCommand::Add {
            name,
            read,
            write,
            group,
            admin,
            password,
        } => {
            let rights = Rights {
                read: read.clone(),
                write: write.clone(),
                group: group.clone(),
                admin: *admin,
            };
            let mechanisms = match password.mechanism.as_slice() {
                [] => offered(&document.log),
                given => given.to_vec(),
            };
            let (to_be, made) = to_be(name, rights, password, &mechanisms)?;
            let listed: Listed = meaning(&ask(running, Method::POST, API, Some(&to_be))?)?;
            told("is there", &listed, made.as_ref(), output)?;
            if !read.is_empty() && group.is_empty() && !admin && output == Output::Text {
                warn("it reads by partition; to be in a group and commit offsets it needs --group");
            }
        }
        UsersCommand::Remove { name } => {
            let target = format!("{API}?name={}", encoded(name));
            let listed: Listed = meaning(&ask(running, Method::DELETE, &target, None)?)?;
            told("is removed; this it could do", &listed, None, output)?;
        }
        UsersCommand::Passwd { name, password } => {
            let listed: Listed = meaning(&ask(running, Method::GET, API, None)?)?;
            let known = listed.users.iter().find(|user| user.name == *name);
            let known = known.ok_or_else(|| format!("there is no user {name:?}"))?;
            let mechanisms = match password.mechanism.as_slice() {
                [] => known
                    .mechanisms
                    .iter()
                    .filter_map(|name| Scram::of_name(name))
                    .collect(),
                given => given.to_vec(),
            };
            let (to_be, made) = to_be(name, Rights::default(), password, &mechanisms)?;
            let listed: Listed = meaning(&ask(running, Method::PUT, API, Some(&to_be))?)?;
            told("has another password", &listed, made.as_ref(), output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The mechanisms that passwords are kept for, unless said otherwise.
fn offered(log: &wardent::Log) -> Vec<Scram> {
    let mechanisms = log.sasl.iter().flat_map(|sasl| &sasl.mechanisms);
    let scrams: Vec<_> = mechanisms
        .filter_map(|one| Scram::of_name(one.word()))
        .collect();
    match scrams.is_empty() {
        // PLAIN takes any.
        true => vec![Scram::Sha512],
        false => scrams,
    }
}

type Password = Zeroizing<String>;

/// What is to be kept, and the password if it was made here.
fn to_be(
    name: &str,
    rights: Rights,
    arguments: &PasswordArguments,
    mechanisms: &[Scram],
) -> Result<(Value, Option<Password>), String> {
    let given = arguments
        .password_file
        .as_deref()
        .map(password_in)
        .transpose()?;
    let made = match &given {
        Some(_) => None,
        None => Some(Password::new(
            generate().map_err(|error| format!("no randomness: {error}"))?,
        )),
    };
    let password = given
        .as_ref()
        .or(made.as_ref())
        .map(|password| password.as_bytes());
    let password = password.unwrap_or_default();
    let mut credentials = BTreeMap::new();
    for &mechanism in mechanisms {
        let credential = Credential::new(mechanism, password);
        let credential = credential.map_err(|error| format!("no randomness: {error}"))?;
        credentials.insert(mechanism.name().to_owned(), written_credential(&credential));
    }
    let to_be = ToBe {
        name: name.to_owned(),
        credentials,
        rights,
    };
    let to_be = serde_json::to_value(to_be).map_err(|error| error.to_string())?;
    Ok((to_be, made))
}

/// The password in a file, without its newline.
fn password_in(file: &Path) -> Result<Password, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut text = Password::default();
    let read = match file == Path::new("-") {
        true => std::io::stdin()
            .take(PASSWORD_BYTES_MAX + 1)
            .read_to_string(&mut text),
        false => {
            let file = std::fs::File::open(file).map_err(unreadable)?;
            file.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text)
        }
    };
    read.map_err(unreadable)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    let is_long = password.len() as u64 > PASSWORD_BYTES_MAX;
    if password.len() < PASSWORD_BYTES_MIN || is_long || password.contains(['\n', '\0']) {
        return Err(format!(
            "{}: a password is one line of {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes",
            file.display()
        ));
    }
    Ok(Password::new(password.to_owned()))
}

fn print_list(listed: &Listed, output: Output) -> Result<(), String> {
    if output == Output::Json {
        tell_json(listed);
        return Ok(());
    }
    let mut rows = vec![["USER", "MECHANISMS", "MAY"].map(str::to_owned).to_vec()];
    for user in &listed.users {
        let mut rights = may(user).into_iter();
        let first = rights.next().unwrap_or_else(|| "nothing".to_owned());
        rows.push(vec![
            printable(&user.name),
            user.mechanisms.join(" "),
            first,
        ]);
        rows.extend(rights.map(|right| vec![String::new(), String::new(), right]));
    }
    print_table(&rows);
    not_asked(listed);
    Ok(())
}

fn may(user: &Shown) -> Vec<String> {
    let all = user.admin.then(|| "everything".to_owned());
    let rights = user.rights.iter().map(|right| printable(right));
    all.into_iter().chain(rights).collect()
}

fn told(
    what: &str,
    listed: &Listed,
    made: Option<&Password>,
    output: Output,
) -> Result<(), String> {
    let user = listed.users.first();
    let user = user.ok_or("the running wardent answers something else")?;
    match output {
        Output::Json => {
            let mut said = json!({"user": user, "asked": listed.asked});
            if let (Some(said), Some(made)) = (said.as_object_mut(), made) {
                said.insert("password".to_owned(), Value::from(made.as_str()));
            }
            tell_json(&said);
        }
        Output::Text => {
            let mechanisms = user.mechanisms.join(", ");
            tell(&format!("{} {what} ({mechanisms})", printable(&user.name)));
            may(user)
                .iter()
                .for_each(|right| tell(&format!("  {right}")));
            if let Some(made) = made {
                tell(&format!("password: {}", made.as_str()));
                warn("the password is shown this once: it is kept nowhere");
            }
            not_asked(listed);
        }
    }
    Ok(())
}

fn not_asked(listed: &Listed) {
    if !listed.asked {
        warn("`log.sasl` is not set: clients are not asked who they are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(bytes: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, bytes).unwrap();
        password_in(&file).map(|password| password.as_str().to_owned())
    }

    #[test]
    fn a_password_is_one_line() {
        assert_eq!(in_file(b"correct horse\n").unwrap(), "correct horse");
        assert_eq!(in_file(b" 12345678 \r\n").unwrap(), " 12345678 ");
        for bytes in [
            &b""[..],
            b"1234567",
            b"12345678\n12345678",
            b"12345678\xff",
            &[b'x'; 1_025],
        ] {
            in_file(bytes).unwrap_err();
        }
    }

    #[test]
    fn passwords_are_kept_for_what_is_offered() {
        let log = |mechanisms: &[wardent::Mechanism]| wardent::Log {
            sasl: Some(wardent::Sasl {
                mechanisms: mechanisms.to_vec(),
            }),
            ..wardent::Log::default()
        };
        use wardent::Mechanism::{Plain, ScramSha256};
        assert_eq!(offered(&log(&[Plain, ScramSha256])), [Scram::Sha256]);
        assert_eq!(offered(&log(&[Plain])), [Scram::Sha512]);
        assert_eq!(offered(&wardent::Log::default()), [Scram::Sha512]);
    }

    #[test]
    fn what_is_sent_holds_no_password() {
        let arguments = PasswordArguments {
            password_file: None,
            mechanism: Vec::new(),
        };
        let rights = Rights::default();
        let (to_be, made) = to_be("me", rights, &arguments, &[Scram::Sha256]).unwrap();
        let made = made.unwrap();
        assert!(!to_be.to_string().contains(made.as_str()));
        let kept = &to_be["credentials"]["SCRAM-SHA-256"];
        let kept = crate::kafka::read_credential(Scram::Sha256, kept).unwrap();
        assert!(kept.is_of(made.as_bytes()));
    }
}
