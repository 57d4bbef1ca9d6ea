//! The owner's keys: one command makes them, and every change of them is a root that devices follow.

#![cfg(unix)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_trust::{Dalek, Trust};
use serde_json::{Value, json};
use support::plane::Plane;
use support::{Bench, Said, dunlin};

/// Made by `openssl genpkey -algorithm ed25519`, and its public key as `openssl pkey -text` shows it.
const OPENSSL: (&str, &str) = (
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDsnQmZfpysK1cUtdO2iU7Sz+ukrRgokzkDxkyb+q1z5\n\
     -----END PRIVATE KEY-----\n",
    "c97130aa3db91ef210df3e17cd26162a7fe247c5b7e3fd77e252df5437b25f2c",
);

/// A control plane, and a folder of keys for it.
struct Owner<'a> {
    plane: &'a Plane,
    folder: String,
}

impl<'a> Owner<'a> {
    fn new(bench: &Bench, plane: &'a Plane, folder: &str) -> Self {
        Owner { plane, folder: bench.path(folder) }
    }

    fn try_run(&self, arguments: &[&str]) -> Said {
        let said = self.plane.try_run(&[&["keys", "--dir", &self.folder], arguments].concat());
        for file in self.files() {
            let pem = std::fs::read_to_string(file).expect("a key");
            let secret = pem.lines().nth(1).expect("a line of Base64");
            assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret), "a secret is shown");
        }
        said
    }

    fn run(&self, arguments: &[&str]) -> Value {
        self.try_run(&[arguments, &["--json"]].concat()).success().json()
    }

    /// The files with secret keys.
    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = Path::new(&self.folder).read_dir() else { return Vec::new() };
        let files = entries.map(|entry| entry.expect("an entry").path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "pem")).collect()
    }

    /// What a device believes after it has followed all roots from the first one.
    fn device(&self) -> Trust {
        let root = |number: u32| self.plane.get(&format!("/api/v1/trust/roots/{number}"));
        let (status, first) = root(1);
        assert_eq!(status, 200);
        let mut trust = Trust::pin(&first, &Dalek).expect("it can be pinned");
        while let (200, next) = root(trust.root() + 1) {
            trust.rotate(&next, &Dalek).expect("it follows");
        }
        trust
    }
}

/// The keys of a role in a root.
fn keys<'a>(root: &'a Value, role: &str) -> Vec<&'a str> {
    let roles = root["roles"].as_array().expect("roles");
    let role = roles.iter().find(|entry| entry["role"] == role).expect("the role");
    role["keys"].as_array().expect("keys").iter().map(|key| key["key"].as_str().expect("a key")).collect()
}

#[test]
fn one_command_makes_the_keys_and_they_are_for_their_owner_only() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let owner = Owner::new(&bench, &plane, "config/keys");
    let none = owner.try_run(&["show"]).success();
    assert!(none.stdout.starts_with("no root: ") && none.stdout.contains("`dunlin keys create`"));
    owner.try_run(&["rotate", "--role", "root"]).failure(4, &["has no root", "`dunlin keys create`"]);

    // What is refused leaves nothing behind.
    let operator = plane.run(&["token", "create", "--name", "o", "--role", "operator"]);
    let mut command = plane.command(&["keys", "create", "--dir", &owner.folder]);
    let denied =
        support::plane::said(command.env("DUNLIN_TOKEN", operator["token"].as_str().expect("a token")));
    denied.failure(3, &["another role or scope"]);
    assert!(owner.files().is_empty());

    let made = owner.try_run(&["create"]).success();
    assert!(made.stdout.starts_with("root 1, written ") && made.stdout.contains(", valid for ever\n"));
    let files = owner.files();
    assert_eq!(files.len(), 2);
    for file in &files {
        assert!(made.stdout.contains(&format!("made {}\n", file.display())), "{}", made.stdout);
        assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    }
    let mode = Path::new(&owner.folder).metadata().expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let shown = owner.run(&["show"]);
    assert_eq!((&shown["number"], &shown["expires"]), (&json!(1), &Value::Null));
    let (_, trust) = plane.get("/api/v1/trust");
    let trust: Value = serde_json::from_slice(&trust).expect("JSON");
    assert_eq!(keys(&shown, "director"), [trust["director"].as_str().expect("a key")]);
    assert_eq!(shown["signers"], json!(keys(&shown, "root")), "the release key signs no root");
    for (role, here) in [("root", true), ("release", true), ("director", false)] {
        let roles = shown["roles"].as_array().expect("roles");
        let entry = roles.iter().find(|entry| entry["role"] == role).expect("the role");
        assert_eq!(entry["keys"][0]["here"], here, "{role}");
    }
    assert_eq!(owner.device().root(), 1);
    let exported = bench.path("built-in.root");
    assert_eq!(owner.run(&["export", &exported])["number"], 1);
    let pinned = Trust::pin(&std::fs::read(&exported).expect("a root"), &Dalek).expect("firmware pins it");
    assert_eq!(pinned, owner.device());

    owner.try_run(&["create"]).failure(5, &["has root 1 already", "`dunlin keys rotate`"]);
    // One folder is one control plane's.
    let other = Plane::start(&bench, "other", &[]);
    let same = Owner { plane: &other, folder: owner.folder.clone() };
    same.try_run(&["create"]).failure(2, &[&owner.folder, "holds keys already", "--dir"]);
    assert_eq!(owner.files().len(), 2);
}

#[test]
fn keys_are_replaced_added_and_revoked_and_devices_follow() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let owner = Owner::new(&bench, &plane, "keys");
    let first = owner.run(&["create", "--valid-days", "365"]);
    assert!(first["expires"].is_string());

    let second = owner.run(&["rotate", "--role", "release"]);
    assert_ne!(keys(&second, "release"), keys(&first, "release"));
    let third = owner.run(&["rotate", "--role", "root"]);
    assert_ne!(keys(&third, "root"), keys(&second, "root"));
    assert_eq!(third["signers"].as_array().map(Vec::len), Some(2), "the old key and the new one");
    assert!(third["expires"].is_string());

    // Two of three release keys.
    let openssl = bench.file("openssl.pem", OPENSSL.0.as_bytes());
    assert_eq!(dunlin(&["keys", "public", &openssl]).success().stdout, format!("{}\n", OPENSSL.1));
    let another = "11".repeat(32);
    let add = ["change", "--role", "release", "--add", OPENSSL.1, "--add", &another, "--threshold", "2"];
    let fourth = owner.run(&add);
    assert_eq!(keys(&fourth, "release").len(), 3);
    assert_eq!(fourth["roles"][1]["threshold"], 2);
    owner.try_run(&add).failure(2, &[OPENSSL.1, "is a release key already"]);
    owner
        .try_run(&["rotate", "--role", "release"])
        .failure(2, &["the release role has several keys", "--replace"]);
    owner.run(&["revoke", &another]);
    owner.try_run(&["revoke", &another]).failure(2, &["does not name the key", "dunlin keys show"]);
    owner.try_run(&["revoke", OPENSSL.1]).failure(2, &["2 of 1 release keys", "--threshold"]);
    let sixth = owner.run(&["revoke", OPENSSL.1, "--threshold", "1"]);
    assert_eq!(keys(&sixth, "release"), keys(&second, "release"));
    let only = keys(&sixth, "release")[0];
    owner
        .try_run(&["revoke", only])
        .failure(2, &["the only release key", "dunlin keys rotate --role release"]);
    owner.try_run(&["revoke", "x"]).failure(2, &["\"x\" is no public key"]);
    // Renewed, and for ever from now on.
    let seventh = owner.run(&["change", "--valid-days", "0"]);
    assert_eq!((&seventh["number"], &seventh["expires"]), (&json!(7), &Value::Null));
    assert_eq!(owner.device().root(), 7);
    assert_eq!(owner.files().len(), 4, "what was refused made no keys");

    // Somebody without the keys makes no root.
    let stranger = Owner::new(&bench, &plane, "stranger");
    stranger
        .try_run(&["rotate", "--role", "release"])
        .failure(1, &["signed by 0 root keys, needs 1", "--out"]);
    assert!(stranger.files().is_empty());
    assert_eq!(owner.device().root(), 7);
}

#[test]
fn root_keys_that_stay_offline_sign_a_file() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let owner = Owner::new(&bench, &plane, "keys");
    owner.run(&["create"]);
    let offline = bench.file("offline.pem", OPENSSL.0.as_bytes());
    let file = bench.path("root.signed");
    let out = owner
        .try_run(&["change", "--role", "root", "--add", OPENSSL.1, "--threshold", "2", "--out", &file])
        .success();
    assert!(out.stdout.contains(&format!("needs more signatures: dunlin keys sign --key KEY.pem {file}\n")));
    assert_eq!(owner.device().root(), 1);
    owner.try_run(&["submit", &file]).failure(1, &[&file, "signed by 1 root keys, needs 2"]);
    // On the other machine: no server, no folder.
    let sign = ["keys", "--dir", &bench.path("none"), "sign", &file, "--key", &offline, "--json"];
    let signed = dunlin(&sign).success().json();
    assert_eq!(signed["signers"].as_array().map(Vec::len), Some(2));
    assert_eq!(dunlin(&sign).success().json(), signed, "again adds nothing");
    assert_eq!(owner.run(&["show", &file])["signers"], signed["signers"]);
    owner.run(&["submit", &file]);
    assert_eq!(owner.device().root(), 2);
    owner.try_run(&["submit", &file]).failure(1, &["root 2 does not follow: 3 is next"]);

    // From now on one key alone is not enough.
    owner.try_run(&["rotate", "--role", "release"]).failure(1, &["signed by 1 root keys, needs 2"]);
    let out = owner.try_run(&["rotate", "--role", "release", "--out", &file]).success();
    assert!(out.stdout.contains("made "), "{}", out.stdout);
    dunlin(&sign).success();
    // What was changed on the way is noticed.
    let whole = std::fs::read(&file).expect("a root");
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    std::fs::write(&file, &damaged).expect("written");
    owner.try_run(&["submit", &file]).failure(1, &[&file]);
    assert_eq!(owner.device().root(), 2);
    std::fs::write(&file, whole).expect("written");
    owner.run(&["submit", &file]);
    assert_eq!(owner.device().root(), 3);

    let text = bench.file("text.pem", b"no key");
    dunlin(&["keys", "sign", &file, "--key", &text]).failure(1, &[&text, "no private key in PEM"]);
    dunlin(&["keys", "sign", &text, "--key", &offline]).failure(1, &[&text, "is no root or release"]);
}

#[test]
fn a_server_cannot_have_the_owner_sign_another_chain_of_roots() {
    let bench = Bench::new();
    let (ours, theirs) = (Plane::start(&bench, "ours", &[]), Plane::start(&bench, "theirs", &[]));
    let owner = Owner::new(&bench, &ours, "keys");
    owner.run(&["create"]);
    Owner::new(&bench, &theirs, "other").run(&["create"]);
    // As if their server had taken the place of ours.
    let misled = Owner { plane: &theirs, folder: owner.folder.clone() };
    let file = bench.path("root.signed");
    for command in [&["show"][..], &["rotate", "--role", "release"], &["change", "--out", &file]] {
        misled.try_run(command).failure(1, &[theirs.http(), "has another root 1, but", &owner.folder]);
    }
    assert!(!Path::new(&file).exists());
    assert_eq!(owner.files().len(), 2);
    // An older root than the newest that was seen.
    owner.run(&["rotate", "--role", "release"]);
    misled.try_run(&["show"]).failure(1, &["has only root 1, but"]);
    let none = Plane::start(&bench, "none", &[]);
    let misled = Owner { plane: &none, folder: owner.folder.clone() };
    misled.try_run(&["show"]).failure(1, &["has no root, but"]);

    // What was changed elsewhere is followed from the root that the folder remembers.
    let copy = Owner::new(&bench, &ours, "copy");
    std::fs::create_dir(&copy.folder).expect("a folder");
    for entry in Path::new(&owner.folder).read_dir().expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, Path::new(&copy.folder).join(path.file_name().expect("a name")))
            .expect("copied");
    }
    copy.run(&["rotate", "--role", "release"]);
    copy.run(&["rotate", "--role", "release"]);
    let followed = owner.run(&["rotate", "--role", "release"]);
    assert_eq!(followed["number"], 5);
    assert_eq!(owner.device().root(), 5);
}

#[test]
fn a_director_key_that_was_replaced_is_named_by_the_next_root() {
    let bench = Bench::new();
    let mut plane = Plane::start(&bench, "data", &[]);
    let first = Owner::new(&bench, &plane, "keys").run(&["create"]);
    let refused = Owner::new(&bench, &plane, "keys").try_run(&["rotate", "--role", "director"]);
    refused.failure(2, &["is a director key already"]);
    plane.kill();
    std::fs::write(bench.path("data/director.key"), OPENSSL.0).expect("written");
    plane.resume();
    let owner = Owner::new(&bench, &plane, "keys");
    owner.try_run(&["rotate", "--role", "release"]).failure(5, &["does not name this server's key"]);
    assert_eq!(owner.files().len(), 2);
    let second = owner.run(&["rotate", "--role", "director"]);
    assert_ne!(keys(&second, "director"), keys(&first, "director"));
    assert_eq!(keys(&second, "director"), [OPENSSL.1]);
    assert_eq!(owner.device().root(), 2);
}
