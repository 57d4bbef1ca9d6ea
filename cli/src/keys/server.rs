//! What a control plane says about roots, and why it need not be believed.

use serde_json::Value;

use super::{Folder, Key, SignedRoot, parse_key};
use crate::error::Failure;
use crate::server::Api;

/// What a control plane says of its trust.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerTrust {
    /// Its director's key.
    pub(crate) director: Key,
    /// The newest root's number.
    pub(crate) root: Option<u32>,
}

impl ServerTrust {
    pub(crate) fn ask(api: &Api) -> Result<Self, Failure> {
        let trust = api.get(&["trust"], &[])?;
        let director = trust.get("director").and_then(Value::as_str).unwrap_or_default();
        let root = trust.get("root").and_then(Value::as_u64);
        Ok(ServerTrust {
            director: parse_key(director)?,
            root: root.and_then(|number| u32::try_from(number).ok()),
        })
    }

    /// The newest root. What the folder remembers must lead to it: else whoever holds the server could have the owner
    /// sign their keys.
    pub(crate) fn newest(&self, api: &Api, folder: &Folder) -> Result<Option<SignedRoot>, Failure> {
        let download =
            |number: u32| SignedRoot::decode(&api.download(&["trust", "roots", &number.to_string()])?);
        let Some(mut root) = folder.root()? else {
            let Some(newest) = self.root else { return Ok(None) };
            let root = download(newest)?;
            root.check(None)?;
            return Ok(Some(root));
        };
        let known = root.content().number;
        let other = |what: String| {
            let (address, folder) = (api.address(), folder.path().display());
            Failure::new(format!("{address} has {what}, but {folder} remembers root {known}")).way_out(
                "for another control plane name another folder with --dir; else sign nothing and find out why",
            )
        };
        let newest = self.root.ok_or_else(|| other("no root".to_owned()))?;
        if newest < known {
            return Err(other(format!("only root {newest}")));
        }
        if download(known)?.content() != root.content() {
            return Err(other(format!("another root {known}")));
        }
        for number in known.saturating_add(1)..=newest {
            let next = download(number)?;
            next.check(Some(&root)).map_err(|_| other(format!("a root {number} that does not follow")))?;
            root = next;
        }
        Ok(Some(root))
    }

    /// The newest root, which there must be.
    pub(crate) fn root(api: &Api, folder: &Folder) -> Result<SignedRoot, Failure> {
        ServerTrust::ask(api)?.newest(api, folder)?.ok_or_else(|| {
            Failure::of_status(404, format!("{} has no root", api.address()))
                .way_out("`dunlin keys create` makes it")
        })
    }
}
