//! `dunlin keys`: the keys that decide what devices run.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use dunlin_protocol::Role;
use dunlin_trust::SigningKey;
use serde_json::{Value, json};

use crate::error::{Failure, write_file};
use crate::keys::{
    Content, Folder, Key, ServerTrust, SignedFile, SignedRoot, expiry, now_unix_s, parse_key, read_key, time,
};
use crate::output::{Outcome, table};
use crate::server::{Api, Column, ServerArgs, details, text};

const RELEASE: [Column; 7] = [
    ("digest", "/digest"),
    ("bytes", "/size"),
    ("withdraws below", "/floor"),
    ("hardware", "/hardware"),
    ("written", "/issued"),
    ("expires", "/expires"),
    ("signed by", "/signers"),
];

/// The keys that decide what devices run: make, show, replace and revoke them.
///
/// Devices believe a list of keys, the root. Root keys sign the next root, release keys say which artifacts are valid,
/// and the director key, which the control plane keeps itself, says which device runs what.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  dunlin keys create
  dunlin keys rotate --role release
  dunlin keys change --role release --add 3b6a… --threshold 2
Keys that stay offline sign a file, which `dunlin model sign --out` writes for releases:
  dunlin keys change --role release --add 3b6a… --out root.signed
  dunlin keys sign root.signed --key offline.pem
  dunlin keys submit root.signed")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The folder with the secret keys [variable DUNLIN_KEYS; otherwise ~/.config/dunlin/keys].
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a root key and a release key, and the first root, which names them and the control plane's key.
    Create {
        /// Use this root key (Ed25519, PKCS #8, PEM), such as one of `openssl genpkey -algorithm ed25519`.
        #[arg(long, value_name = "KEY.pem")]
        root_key: Option<PathBuf>,
        /// Use this release key.
        #[arg(long, value_name = "KEY.pem")]
        release_key: Option<PathBuf>,
        /// After how many days a newer root must have come, or devices install nothing; never, if absent.
        #[arg(long, value_name = "DAYS")]
        valid_days: Option<u32>,
    },
    /// Show the newest root, or what is in a file.
    Show {
        /// A file that `--out` wrote; no server is asked.
        file: Option<PathBuf>,
    },
    /// Write the newest root to a file: what firmware has built in, so that it believes nobody else.
    Export {
        /// The file to write.
        file: PathBuf,
    },
    /// Replace a key of a role by a new one; the director's by the one that the control plane has now.
    Rotate {
        /// The role.
        #[arg(long)]
        role: RoleName,
        /// The public key to replace; not needed when there is only one.
        #[arg(long, value_name = "KEY")]
        replace: Option<String>,
        /// The public key to put in its place; made in the folder, if absent.
        #[arg(long, value_name = "KEY")]
        with: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Add keys to a role, change how many of them must sign, or renew the root.
    #[command(group = ArgGroup::new("what").args(["add", "threshold"]).multiple(true))]
    Change {
        /// The role.
        #[arg(long, requires = "what")]
        role: Option<RoleName>,
        /// A public key to add; repeat for more.
        #[arg(long, value_name = "KEY", requires = "role")]
        add: Vec<String>,
        /// How many different keys of the role must sign.
        #[arg(long, value_name = "N", requires = "role")]
        threshold: Option<u8>,
        /// After how many days a newer root must have come; 0: never. Otherwise as long as the root before.
        #[arg(long, value_name = "DAYS")]
        valid_days: Option<u32>,
        #[command(flatten)]
        target: Target,
    },
    /// Take a key out of all its roles: what it signed does not count any more.
    Revoke {
        /// The public key.
        key: String,
        /// How many of the keys that remain must sign.
        #[arg(long, value_name = "N")]
        threshold: Option<u8>,
        #[command(flatten)]
        target: Target,
    },
    /// Add signatures to a root or a release in a file, and show what it says. No server is asked.
    Sign {
        /// A file that `--out` wrote.
        file: PathBuf,
        /// A file with a secret key; repeat for more.
        #[arg(long = "key", value_name = "KEY.pem", required = true)]
        keys: Vec<PathBuf>,
    },
    /// Upload a root that has all its signatures, or a release with signatures.
    Submit {
        /// A file that `--out` wrote.
        file: PathBuf,
    },
    /// Print the public key of a secret one.
    Public {
        /// A file with a secret key.
        file: PathBuf,
    },
}

/// Where a new root goes.
#[derive(Debug, clap::Args)]
struct Target {
    /// Write the root to this file, with the signatures that can be made here, instead of uploading it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Signs the next root.
    Root,
    /// Says which artifacts are valid.
    Release,
    /// Says which device runs what.
    Director,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Root => Role::Root,
            RoleName::Release => Role::Release,
            RoleName::Director => Role::Director,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let folder = Folder::locate(args.dir.as_deref())?;
    let connect = || Api::connect(&args.server);
    match &args.command {
        Command::Create { root_key, release_key, valid_days } => {
            create(&connect()?, &folder, root_key.as_deref(), release_key.as_deref(), *valid_days)
        }
        Command::Show { file: Some(file) } => describe(&SignedFile::read(file)?, &folder, ""),
        Command::Show { file: None } => show(&connect()?, &folder),
        Command::Export { file } => {
            let root = ServerTrust::root(&connect()?, &folder)?;
            write_file(file, &root.encode()?)?;
            Ok(outcome(&root, &folder.keys()?, &format!("wrote {}\n", file.display())))
        }
        Command::Rotate { role, replace, with, target } => {
            let api = connect()?;
            let replace = replace.as_deref().map(parse_key).transpose()?;
            let with = match with {
                Some(key) => Some(parse_key(key)?),
                None if *role == RoleName::Director => Some(ServerTrust::ask(&api)?.director),
                None => None,
            };
            change(&api, &folder, target, |content, made| {
                let new = match with {
                    Some(key) => key,
                    None => made.key(&folder, (*role).into())?,
                };
                content.replace((*role).into(), replace, new).map(|_| ())
            })
        }
        Command::Change { role, add, threshold, valid_days, target } => {
            let add: Vec<Key> = add.iter().map(|key| parse_key(key)).collect::<Result<_, _>>()?;
            change(&connect()?, &folder, target, |content, _| {
                if let Some(role) = role.map(Role::from) {
                    add.iter().try_for_each(|key| content.add(role, *key))?;
                    threshold.map_or(Ok(()), |threshold| content.set_threshold(role, threshold))?;
                }
                if let Some(days) = valid_days {
                    set_validity(content, *days);
                }
                Ok(())
            })
        }
        Command::Revoke { key, threshold, target } => {
            let key = parse_key(key)?;
            change(&connect()?, &folder, target, |content, _| {
                let roles = content.remove(key)?;
                let Some(threshold) = threshold else { return Ok(()) };
                roles.iter().try_for_each(|role| content.set_threshold(*role, *threshold))
            })
        }
        Command::Sign { file, keys } => sign(file, keys, &folder),
        Command::Submit { file } => submit(&connect()?, &folder, file),
        Command::Public { file } => {
            let public = hex::encode(read_key(file)?.public());
            Ok(Outcome::new(&json!({ "key": public }), format!("{public}\n")))
        }
    }
}

/// Keys that were made for a root. Nobody needs their files when the root does not come to be.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    /// The root may be in force.
    is_used: bool,
}

impl Made {
    fn key(&mut self, folder: &Folder, role: Role) -> Result<Key, Failure> {
        let (key, path) = folder.create(role)?;
        self.files.push(path);
        Ok(key.public())
    }

    /// Has the control plane take the root.
    fn upload(&mut self, api: &Api, folder: &Folder, root: &SignedRoot) -> Result<(), Failure> {
        let number = root.content().number.to_string();
        self.is_used = true;
        upload(api, folder, root).inspect_err(|failure| {
            // Whatever went wrong, the answer may have been lost only.
            let is_there = || api.exists(&["trust", "roots", &number]).unwrap_or(true);
            self.is_used = failure.is_unavailable() || is_there();
        })
    }

    /// Removes the files, unless the root may be in force: without its keys no other one would follow it.
    fn undo(&self, failure: Failure) -> Failure {
        if !self.is_used {
            for path in &self.files {
                // One that stays is of no use to anybody.
                let _ = std::fs::remove_file(path);
            }
        }
        failure
    }

    fn shown(&self) -> String {
        self.files.iter().map(|path| format!("made {}\n", path.display())).collect()
    }
}

fn create(
    api: &Api,
    folder: &Folder,
    root_key: Option<&Path>,
    release_key: Option<&Path>,
    valid_days: Option<u32>,
) -> Result<Outcome, Failure> {
    let server = ServerTrust::ask(api)?;
    if let Some(number) = server.root {
        let failure = Failure::of_status(409, format!("{} has root {number} already", api.address()));
        return Err(failure.way_out("`dunlin keys rotate` replaces keys"));
    }
    if !folder.keys()?.is_empty() || folder.root()?.is_some() {
        let failure = Failure::usage("holds keys already, maybe another control plane's").file(folder.path());
        return Err(
            failure.way_out("name another folder with --dir; --root-key and --release-key use keys again")
        );
    }
    let mut made = Made::default();
    let done = (|| {
        let mut keys = Vec::new();
        let mut key = |given: Option<&Path>, role| match given {
            Some(file) => {
                let key = read_key(file)?;
                let public = key.public();
                keys.push(key);
                Ok(public)
            }
            None => made.key(folder, role),
        };
        let root = key(root_key, Role::Root)?;
        let release = key(release_key, Role::Release)?;
        keys.extend(folder.keys()?);
        let mut content = Content::first(root, release, server.director, now_unix_s()?);
        set_validity(&mut content, valid_days.unwrap_or_default());
        let mut root = SignedRoot::new(content)?;
        root.sign_with(None, &keys);
        root.check(None)?;
        made.upload(api, folder, &root)?;
        Ok((root, keys))
    })();
    let (root, keys) = done.map_err(|failure| made.undo(failure))?;
    let advice = "\
Keep a copy of the keys where nobody finds it: without the root key no other root is possible.\n";
    Ok(outcome(&root, &keys, &format!("{}{advice}", made.shown())))
}

fn show(api: &Api, folder: &Folder) -> Result<Outcome, Failure> {
    let server = ServerTrust::ask(api)?;
    match server.newest(api, folder)? {
        Some(root) => Ok(outcome(&root, &folder.keys()?, "")),
        None => {
            let director = hex::encode(server.director);
            let shown = format!(
                "no root: nothing has to be signed; `dunlin keys create` makes one\n\
                 the control plane's director key is {director}\n"
            );
            Ok(Outcome::new(&json!({ "number": null, "director": director }), shown))
        }
    }
}

/// Makes the next root from the newest one.
fn change(
    api: &Api,
    folder: &Folder,
    target: &Target,
    edit: impl FnOnce(&mut Content, &mut Made) -> Result<(), Failure>,
) -> Result<Outcome, Failure> {
    let previous = ServerTrust::root(api, folder)?;
    let mut made = Made::default();
    let done = (|| {
        let mut content = previous.content().next(now_unix_s()?);
        edit(&mut content, &mut made)?;
        let keys = folder.keys()?;
        let mut root = SignedRoot::new(content)?;
        root.sign_with(Some(&previous), &keys);
        match &target.out {
            Some(file) => {
                folder.remember(&previous)?;
                write_file(file, &root.encode()?)?;
                made.is_used = true;
            }
            None => {
                root.check(Some(&previous))?;
                made.upload(api, folder, &root)?;
            }
        }
        Ok((root, keys))
    })();
    let (root, keys) = done.map_err(|failure| made.undo(failure))?;
    let mut more = made.shown();
    if let Some(file) = &target.out {
        let next = match root.check(Some(&previous)) {
            Ok(()) => "it has all signatures: dunlin keys submit",
            Err(_) => "it needs more signatures: dunlin keys sign --key KEY.pem",
        };
        more += &format!("{next} {}\n", file.display());
    }
    Ok(outcome(&root, &keys, &more))
}

fn sign(file: &Path, keys: &[PathBuf], folder: &Folder) -> Result<Outcome, Failure> {
    let mut signed = SignedFile::read(file)?;
    for key in keys {
        signed.sign(&read_key(key)?);
    }
    signed.write(file)?;
    describe(&signed, folder, "")
}

fn submit(api: &Api, folder: &Folder, file: &Path) -> Result<Outcome, Failure> {
    let signed = SignedFile::read(file)?;
    match &signed {
        SignedFile::Root(root) => {
            let previous = ServerTrust::ask(api)?.newest(api, folder)?;
            root.check(previous.as_ref()).map_err(|failure| failure.file(file))?;
            upload(api, folder, root)?;
            describe(&signed, folder, "")
        }
        SignedFile::Release(release) => {
            let about = release.describe()?;
            let (model, version) = (text(&about["model"]), about["version"].to_string());
            let path = ["models", model.as_str(), "versions", &version, "release"];
            let taken = api.replace(&path, &release.encode()?).map_err(|failure| failure.file(file))?;
            let so_far = format!("signed: {} of {} signatures\n", taken["signatures"], taken["threshold"]);
            describe(&signed, folder, &so_far)
        }
    }
}

fn upload(api: &Api, folder: &Folder, root: &SignedRoot) -> Result<(), Failure> {
    api.upload(&["trust", "roots"], &[], &root.encode()?)?;
    folder.remember(root)
}

/// What a file holds.
fn describe(signed: &SignedFile, folder: &Folder, more: &str) -> Result<Outcome, Failure> {
    match signed {
        SignedFile::Root(root) => Ok(outcome(root, &folder.keys()?, more)),
        SignedFile::Release(release) => {
            let about = release.describe()?;
            let heading = format!("release of {} version {}", text(&about["model"]), about["version"]);
            Ok(details(about, &heading, &RELEASE).and(more))
        }
    }
}

fn set_validity(content: &mut Content, days: u32) {
    content.expires_unix_s = expiry(content.issued_unix_s, days);
}

/// A root as people and programs read it.
fn outcome(root: &SignedRoot, here: &[SigningKey], more: &str) -> Outcome {
    let content = root.content();
    let here: Vec<Key> = here.iter().map(SigningKey::public).collect();
    let signers = root.signers();
    let expires = time(content.expires_unix_s);
    let roles: Vec<Value> = content
        .roles
        .iter()
        .map(|(role, set)| {
            let keys = set.keys.iter().map(|key| {
                json!({ "key": hex::encode(key), "here": here.contains(key), "signed": signers.contains(key) })
            });
            json!({
                "role": role.as_str(), "threshold": set.threshold, "keys": keys.collect::<Vec<_>>(),
            })
        })
        .collect();
    let issued = time(content.issued_unix_s);
    let rows = content.roles.iter().flat_map(|(role, set)| {
        set.keys.iter().map(|key| {
            let mark = |is: bool| if is { "yes" } else { "-" }.to_owned();
            let of = format!("{} of {}", set.threshold, set.keys.len());
            let key_here = mark(here.contains(key));
            vec![role.as_str().to_owned(), of, hex::encode(key), key_here, mark(signers.contains(key))]
        })
    });
    let until = if expires.is_null() { "for ever".to_owned() } else { format!("until {}", text(&expires)) };
    let shown = format!(
        "root {}, written {}, valid {until}\n{}{more}",
        content.number,
        text(&issued),
        table(&["role", "must sign", "key", "secret here", "signed"], rows, 5),
    );
    let signers: Vec<String> = signers.iter().map(hex::encode).collect();
    let report = json!({
        "number": content.number, "issued": issued, "expires": expires, "roles": roles, "signers": signers,
    });
    Outcome::new(&report, shown)
}
