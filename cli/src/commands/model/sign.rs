//! Signing what devices may run.

use std::path::{Path, PathBuf};

use dunlin_protocol::Role;
use dunlin_trust::SigningKey;
use serde_json::{Value, json};

use crate::error::Failure;
use crate::keys::{
    Content, Folder, ServerTrust, SignedFile, SignedRelease, Terms, Version, now_unix_s, read_key,
};
use crate::model::ModelFile;
use crate::output::printable;
use crate::server::Api;

/// Which keys sign, and what they say.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Release")]
pub(super) struct SignArgs {
    /// Sign with this release key (Ed25519, PKCS #8, PEM); repeat for more [variable DUNLIN_RELEASE_KEY; otherwise as many
    /// of the release keys in the keys folder as must sign].
    #[arg(long = "release-key", value_name = "KEY.pem")]
    keys: Vec<PathBuf>,
    /// The folder with the secret keys [variable DUNLIN_KEYS; otherwise ~/.config/dunlin/keys].
    #[arg(long = "keys", value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    terms: Terms,
}

/// What became of it.
pub(super) enum Signed {
    /// The release as the control plane shows it.
    Yes(Value),
    /// Nothing has to be signed: there is no root.
    NotNeeded,
    /// There is no key to sign with in this folder.
    NoKey(PathBuf),
    /// It is in a file, with what it says.
    Written(PathBuf, Value),
}

impl Signed {
    /// For people.
    pub(super) fn text(&self, model: &str, version: u32) -> String {
        let sign = format!("dunlin model sign {model} {version}");
        match self {
            Signed::NotNeeded => {
                "not signed: devices need no signatures before `dunlin keys create`\n".to_owned()
            }
            Signed::NoKey(folder) => format!(
                "not signed: {} holds no release key; sign it with: {sign} --release-key KEY.pem\n",
                folder.display()
            ),
            Signed::Written(file, _) => {
                let file = file.display();
                format!(
                    "wrote {file}: dunlin keys sign {file} --key KEY.pem, then dunlin keys submit {file}\n"
                )
            }
            Signed::Yes(release) => {
                let (count, threshold) = (&release["signatures"], &release["threshold"]);
                match release["complete"].as_bool() {
                    Some(true) => format!("signed: {count} of {threshold} signatures\n"),
                    _ => format!(
                        "signed: {count} of {threshold} signatures; another owner adds one with: {sign}\n"
                    ),
                }
            }
        }
    }
}

/// Signs a version: the same as owners before, unless the arguments say something else.
pub(super) fn sign(
    api: &Api,
    args: &SignArgs,
    version: &Version<'_>,
    has_release: bool,
    out: Option<&Path>,
) -> Result<Signed, Failure> {
    let folder = Folder::locate(args.folder.as_deref())?;
    let files = args.key_files();
    let Some(root) = ServerTrust::ask(api)?.newest(api, &folder)? else {
        if files.is_empty() && args.terms.is_empty() && out.is_none() {
            return Ok(Signed::NotNeeded);
        }
        let failure =
            Failure::of_status(404, format!("{} has no root that names release keys", api.address()));
        return Err(failure.way_out("`dunlin keys create` makes it"));
    };
    let root = root.content();
    let keys = match files.as_slice() {
        [] => in_folder(&folder, root)?,
        files => files.iter().map(|file| release_key(file, root)).collect::<Result<_, _>>()?,
    };
    if keys.is_empty() && out.is_none() {
        return Ok(Signed::NoKey(folder.path().to_owned()));
    }
    let number = version.version.to_string();
    let path = ["models", version.model, "versions", &number, "release"];
    let there = match has_release && args.terms.is_empty() {
        true => Some(SignedRelease::of(&api.download(&path)?, version, root)?),
        false => None,
    };
    let mut release = match there.filter(|there| there.signatures() > 0) {
        Some(there) => there,
        None => SignedRelease::new(version, &args.terms, now_unix_s()?)?,
    };
    let missing = root.threshold(Role::Release).saturating_sub(release.signatures());
    let count = if files.is_empty() { missing } else { keys.len() };
    release.sign(&keys, count);
    if let Some(out) = out {
        let about = release.describe()?;
        SignedFile::Release(release).write(out)?;
        return Ok(Signed::Written(out.to_owned(), about));
    }
    Ok(Signed::Yes(api.replace(&path, &release.encode()?)?))
}

impl SignArgs {
    fn key_files(&self) -> Vec<PathBuf> {
        if !self.keys.is_empty() {
            return self.keys.clone();
        }
        let variable = std::env::var_os("DUNLIN_RELEASE_KEY").filter(|value| !value.is_empty());
        variable.map(PathBuf::from).into_iter().collect()
    }
}

fn release_key(file: &Path, root: &Content) -> Result<SigningKey, Failure> {
    let key = read_key(file)?;
    if root.keys(Role::Release).contains(&key.public()) {
        return Ok(key);
    }
    let public = hex::encode(key.public());
    Err(Failure::new(format!("is no release key of root {}", root.number)).file(file).way_out(format!(
        "`dunlin keys show` lists them; `dunlin keys change --role release --add {public}` adds it"
    )))
}

/// The release keys in the folder.
fn in_folder(folder: &Folder, root: &Content) -> Result<Vec<SigningKey>, Failure> {
    let keys = folder.keys()?.into_iter();
    Ok(keys.filter(|key| root.keys(Role::Release).contains(&key.public())).collect())
}

/// What a version's artifact is, by its bytes. What the control plane says about the version must be the same.
pub(super) fn identify<'a>(
    model: &'a str,
    shown: &Value,
    artifact: &ModelFile,
) -> Result<Version<'a>, Failure> {
    let parsed = artifact.parse_intact()?;
    let number = shown["version"].as_u64().and_then(|number| u32::try_from(number).ok());
    let size = u32::try_from(artifact.bytes().len()).ok();
    let digest = parsed.artifact.digest();
    if shown["digest"] == json!(hex::encode(digest))
        && shown["size"].as_u64() == size.map(u64::from)
        && let (Some(version), Some(size)) = (number, size)
    {
        return Ok(Version { model, version, digest, size });
    }
    let what = printable(&format!("{model} version {} is another artifact", shown["version"]));
    Err(Failure::new(what).file(parsed.path).way_out("sign nothing and find out why"))
}
