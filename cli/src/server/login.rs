//! Who asks: an address and a token, from the arguments, the environment or the login file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ServerArgs;
use crate::error::{Failure, read_file};
use crate::private_file;

/// Bytes of a token or a login file.
const MAX_FILE: u64 = 16 << 10;

/// An access token. It is never printed.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Token(String);

impl Token {
    /// A token as it stands in a variable or a file: surrounding white space does not count.
    pub(crate) fn new(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            let failure = Failure::usage("an access token is one word of printable ASCII characters");
            return Err(
                failure.way_out("`dunlin serve` prints the first one, `dunlin token create` makes more")
            );
        }
        Ok(Token(text.to_owned()))
    }

    /// The header that carries it.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A server, the token for it, and whom to believe that it is that server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Login {
    pub(crate) server: String,
    pub(crate) token: Token,
    /// A file with the certificates to trust for HTTPS (PEM), instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
}

/// The file of certificates that an argument or the environment names. Commands in other folders find it as well.
pub(crate) fn ca_file(argument: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let named = argument.map(Path::to_owned).or_else(|| variable("DUNLIN_CA").map(PathBuf::from));
    let Some(path) = named else { return Ok(None) };
    let absolute = std::path::absolute(&path);
    absolute.map(Some).map_err(|error| Failure::new(format!("cannot be found: {error}")).file(&path))
}

/// The value of a variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Login {
    /// What the arguments, the environment and the login file say, in this order.
    pub(crate) fn find(arguments: &ServerArgs) -> Result<Self, Failure> {
        let server = arguments.server.clone().or_else(|| variable("DUNLIN_SERVER"));
        let token = match &arguments.token_file {
            Some(file) => Some(read_token(file)?),
            None => variable("DUNLIN_TOKEN").map(|token| Token::new(&token)).transpose()?,
        };
        let ca = ca_file(arguments.ca.as_deref())?;
        let (server, token) = match (server, token) {
            (Some(server), Some(token)) => return Ok(Login { server, token, ca }),
            missing => missing,
        };
        let file = LoginFile::locate()?;
        let Some(stored) = file.read()? else {
            let failure = Failure::usage("no server is known to ask");
            return Err(failure.way_out("`dunlin login`, or set DUNLIN_SERVER and DUNLIN_TOKEN"));
        };
        // A stored token goes to the server that it was stored for, and to no other.
        if let Some(server) = &server
            && token.is_none()
            && *server != stored.server
        {
            let message = format!("there is no token for {server}; the login is for {}", stored.server);
            return Err(Failure::usage(message).way_out("`dunlin login`, --token-file, or DUNLIN_TOKEN"));
        }
        let is_stored = server.as_ref().is_none_or(|server| *server == stored.server);
        Ok(Login {
            ca: ca.or(stored.ca.filter(|_| is_stored)),
            server: server.unwrap_or(stored.server),
            token: token.unwrap_or(stored.token),
        })
    }
}

/// Reads a token from a file.
pub(crate) fn read_token(file: &Path) -> Result<Token, Failure> {
    let bytes = read_file(file, MAX_FILE)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage("is not text").file(file))?;
    Token::new(&text).map_err(|failure| failure.file(file))
}

/// The user's folder for this program: `dunlin` below XDG_CONFIG_HOME, or ~/.config.
pub(crate) fn config_folder() -> Result<PathBuf, Failure> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let config = config.ok_or_else(|| Failure::new("neither XDG_CONFIG_HOME nor HOME is set"))?;
    Ok(config.join("dunlin"))
}

/// Where `dunlin login` keeps what it was told: `dunlin/login.json` in the user's configuration folder.
#[derive(Debug)]
pub(crate) struct LoginFile(PathBuf);

impl LoginFile {
    /// Where it is, or would be.
    pub(crate) fn locate() -> Result<Self, Failure> {
        Ok(LoginFile(config_folder()?.join("login.json")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The login; `None` when there is none.
    pub(crate) fn read(&self) -> Result<Option<Login>, Failure> {
        if !self.0.exists() {
            return Ok(None);
        }
        let bytes = read_file(&self.0, MAX_FILE)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|_| {
            Failure::new("is not what `dunlin login` writes").file(&self.0).way_out("`dunlin login` again")
        })
    }

    /// Keeps the login, for this user's eyes only.
    pub(crate) fn write(&self, login: &Login) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(login);
        let json = json.map_err(|error| Failure::new(format!("cannot be written: {error}")).file(&self.0))?;
        private_file::write(&self.0, &json)
    }

    /// Forgets the login; whether there was one.
    pub(crate) fn remove(&self) -> Result<bool, Failure> {
        match fs::remove_file(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failure::new(format!("cannot be removed: {error}")).file(&self.0)),
        }
    }
}
