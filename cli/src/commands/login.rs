//! `dunlin login` and `dunlin logout`: remember a server and a token.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Parser;
use serde_json::json;

use crate::error::Failure;
use crate::output::{Outcome, printable};
use crate::server::{Api, Login, LoginFile, Token, ca_file, read_token, text};

/// Remember a control plane and an access token for the commands that ask it.
///
/// The token is asked for, or read from standard input or a file; it is checked before it is kept in
/// ~/.config/dunlin/login.json, which only you can read.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  dunlin login http://127.0.0.1:8080")]
pub(crate) struct Args {
    /// The control plane's address.
    #[arg(value_name = "URL")]
    server: String,
    /// Read the token from this file.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust for HTTPS (PEM), instead of the system's [variable DUNLIN_CA]. The login remembers where
    /// the file is.
    #[arg(long, value_name = "CA.pem")]
    ca: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let token = match &args.token_file {
        Some(file) => read_token(file)?,
        None => ask()?,
    };
    let ca = ca_file(args.ca.as_deref())?;
    let login = Login { server: args.server.trim_end_matches('/').to_owned(), token, ca };
    let me = Api::new(&login)?.get(&["me"], &[])?;
    let file = LoginFile::locate()?;
    file.write(&login)?;
    let word = |name: &str| printable(&text(me.get(name).unwrap_or_default()));
    let shown = format!(
        "logged in to {} as {} ({}), kept in {}\n",
        printable(&login.server),
        word("name"),
        word("role"),
        file.path().display()
    );
    Ok(Outcome::new(&json!({ "server": login.server, "me": me }), shown))
}

/// One line from standard input.
fn ask() -> Result<Token, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        // A failure to print it only means that nobody sees the question.
        let _ = write!(std::io::stderr(), "access token: ");
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    read.map_err(|error| Failure::new(format!("standard input: {error}")))?;
    Token::new(&line)
}

/// Forget the control plane and the token of `dunlin login`.
///
/// The token itself stays valid: `dunlin token revoke` ends it.
#[derive(Debug, Parser)]
pub(crate) struct LogoutArgs {}

pub(crate) fn logout(_: &LogoutArgs) -> Result<Outcome, Failure> {
    let file = LoginFile::locate()?;
    let removed = file.remove()?;
    let shown = if removed { "logged out\n" } else { "there was no login\n" };
    Ok(Outcome::new(&json!({ "removed": removed }), shown.into()))
}
