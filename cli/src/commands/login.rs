//! Who a command logs in as, and how it gets passwords: from a file, the environment, standard input or the terminal, and never
//! from an argument, which everybody on the machine can read.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use bellwether_client::{Password, UserName};
use clap::Args;

use crate::outcome::Failure;

/// Where a password is looked for when no file is named.
const PASSWORD_VARIABLE: &str = "BELLWETHER_PASSWORD";

/// Longest file or line that is read for a password, in bytes.
const PASSWORD_FILE_BYTES_MAX: u64 = 4_096;

/// As whom to connect.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection and output")]
pub struct LoginArgs {
    /// User to log in as. The password is taken from --password-file, BELLWETHER_PASSWORD or the terminal
    #[arg(long, global = true, value_name = "NAME", env = "BELLWETHER_USER")]
    pub user: Option<UserName>,
    /// File with the password in its first line; - is standard input
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// Log in as the user whom the certificate (--tls-cert) names, without a password
    #[arg(long, global = true, env = "BELLWETHER_EXTERNAL", value_name = "BOOL", default_value = "false",
          default_missing_value = "true", num_args = 0..=1, require_equals = true, hide_possible_values = true)]
    pub external: bool,
}

impl LoginArgs {
    /// User and password, if there is a user.
    pub fn credentials(&self) -> Result<Option<(String, String)>, Failure> {
        if self.external {
            return match &self.user {
                Some(user) => Err(Failure::usage(format!(
                    "--external logs in as whom the certificate names: leave --user {user} (BELLWETHER_USER) away"
                ))),
                None => Ok(None),
            };
        }
        let Some(user) = &self.user else {
            return match self.password_file {
                Some(_) => Err(Failure::usage(
                    "--password-file needs --user NAME, for it is of the user who logs in; the password of a user to be made is given by --new-password-file",
                )),
                None => Ok(None),
            };
        };
        let password = match &self.password_file {
            Some(file) => read(file)?,
            None => match std::env::var(PASSWORD_VARIABLE) {
                Ok(password) => password,
                Err(_) if std::io::stdin().is_terminal() => ask(&format!("Password of {user}: "))?,
                Err(_) => {
                    return Err(Failure::usage(format!(
                        "no password for user {user}: give --password-file FILE, or set {PASSWORD_VARIABLE}"
                    )));
                }
            },
        };
        Ok(Some((user.to_string(), password)))
    }
}

/// A new password: from a file, typed twice, or the first line of standard input.
pub fn new_password(user: &UserName, file: Option<&Path>) -> Result<Password, Failure> {
    let password = match file {
        Some(file) => read(file)?,
        None if std::io::stdin().is_terminal() => {
            let password = ask(&format!("New password of {user}: "))?;
            if password != ask("The same again: ")? {
                return Err(Failure::usage("the two passwords differ; nothing was changed"));
            }
            password
        }
        None => read(Path::new("-"))?,
    };
    Password::new(&password).map_err(Failure::usage)
}

fn ask(prompt: &str) -> Result<String, Failure> {
    rpassword::prompt_password(prompt)
        .map_err(|error| Failure::usage(format!("no password could be asked for: {error}")))
}

/// The first line, without its end.
fn read(file: &Path) -> Result<String, Failure> {
    let shown = match file == Path::new("-") {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    };
    let cannot = |error: std::io::Error| {
        Failure::usage(format!("cannot read a password from {shown}: {error}"))
    };
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().lock().take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(cannot)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::usage(format!("there is no password in the first line of {shown}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        for (text, password) in
            [("pencil\n", "pencil"), ("pencil", "pencil"), ("a b \r\nmore", "a b ")]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read(&file).unwrap(), password);
        }
        for empty in ["", "\npencil"] {
            std::fs::write(&file, empty).unwrap();
            assert!(
                matches!(read(&file), Err(Failure::Usage(words)) if words.contains("first line"))
            );
        }
        assert!(matches!(read(Path::new("/nowhere/p")), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_password_without_a_user_is_a_mistake() {
        let args = LoginArgs { user: None, password_file: Some("p".into()), external: false };
        assert!(
            matches!(args.credentials(), Err(Failure::Usage(words)) if words.contains("--user"))
        );
        let nobody = LoginArgs { user: None, password_file: None, external: false };
        assert!(matches!(nobody.credentials(), Ok(None)));
    }

    #[test]
    fn a_login_by_certificate_names_no_user() {
        let user = Some(UserName::new("alice").unwrap());
        let both = LoginArgs { user, password_file: None, external: true };
        assert!(
            matches!(both.credentials(), Err(Failure::Usage(words)) if words.contains("alice"))
        );
        let alone = LoginArgs { user: None, password_file: None, external: true };
        assert!(matches!(alone.credentials(), Ok(None)));
    }
}
