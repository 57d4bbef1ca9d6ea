//! The control plane as the commands see it: where it is, who asks, and its API.

mod api;
mod login;
mod show;

pub(crate) use api::Api;
pub(crate) use login::{Login, LoginFile, Token, ca_file, config_folder, read_token};
pub(crate) use show::{Column, details, list, text};

use std::path::PathBuf;

/// Which server a command asks, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// The control plane's address [variable DUNLIN_SERVER; otherwise the one of `dunlin login`].
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// A file that holds the access token [otherwise variable DUNLIN_TOKEN, or the one of `dunlin login`].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates to trust for HTTPS (PEM), instead of the system's [variable DUNLIN_CA; otherwise those of
    /// `dunlin login`].
    #[arg(long, global = true, value_name = "CA.pem")]
    pub(crate) ca: Option<PathBuf>,
}
