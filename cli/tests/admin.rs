//! The commands of administration as their users run them: what they print for people and for programs, what they
//! refuse, and how the ones that go on for ever end.

#![cfg(unix)]

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use support::plane::{Plane, digits, said, wait_for};
use support::watcher::Watcher;
use support::{Bench, Said, dunlin};

/// A command without the environment's server and token, with a configuration folder of its own.
fn at_home(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.args(arguments).env("XDG_CONFIG_HOME", bench.path("config"));
    for name in ["DUNLIN_SERVER", "DUNLIN_TOKEN", "DUNLIN_CA"] {
        command.env_remove(name);
    }
    command
}

/// `dunlin login` with the token on standard input.
fn login(bench: &Bench, arguments: &[&str], token: &str) -> Said {
    let mut command = at_home(bench, &[&["login"], arguments].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A command that refuses its arguments does not read.
    let _ = writeln!(child.stdin.take().expect("piped"), "{token}");
    let output = child.wait_with_output().expect("it ends");
    Said {
        code: output.status.code().expect("no signal"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The words of a table, a list per line.
fn words(said: &Said) -> Vec<Vec<&str>> {
    said.stdout
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect())
        .collect()
}

#[test]
fn a_login_is_kept_for_its_owner_and_the_token_is_never_shown() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let file = bench.path("config/dunlin/login.json");
    let failed =
        said(&mut at_home(&bench, &["fleet", "list"])).failure(2, &["no server is known", "dunlin login"]);
    assert!(failed.stdout.is_empty());
    let wrong = login(&bench, &[plane.http()], "dunlin_wrong").failure(3, &["token", "`dunlin login`"]);
    assert!(!wrong.stderr.contains("dunlin_wrong"));
    login(&bench, &[plane.http()], "").failure(2, &["an access token is one word"]);
    login(&bench, &["nowhere"], plane.token()).failure(2, &["\"nowhere\"", "http://host:port"]);
    assert!(!std::path::Path::new(&file).exists(), "only what works is kept");

    let done = login(&bench, &[&format!("{}/", plane.http())], plane.token()).success();
    assert!(done.stdout.contains(&format!("logged in to {} as ", plane.http())), "{}", done.stdout);
    assert!(done.stdout.contains("(admin)") && done.stdout.contains(&file), "{}", done.stdout);
    let mode = std::fs::metadata(&file).expect("it is kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let json = login(&bench, &[plane.http(), "--json"], plane.token()).success();
    assert_eq!(json.json()["me"]["role"], "admin");
    let listed = said(&mut at_home(&bench, &["token", "list"])).success();
    for text in [&done, &json, &listed] {
        assert!(!format!("{}{}", text.stdout, text.stderr).contains(plane.token()), "{}", text.stdout);
    }
    // The token goes to the server that it was given for, and to no other.
    said(&mut at_home(&bench, &["token", "list", "--server", "http://127.0.0.1:1"]))
        .failure(2, &["http://127.0.0.1:1", plane.http()]);

    let out = said(&mut at_home(&bench, &["logout"])).success();
    assert_eq!(out.stdout, "logged out\n");
    assert!(!std::path::Path::new(&file).exists());
    assert_eq!(said(&mut at_home(&bench, &["logout", "--json"])).success().json()["removed"], false);

    let token_file = bench.file("token", format!("{}\n", plane.token()).as_bytes());
    let arguments = ["fleet", "list", "--server", plane.http(), "--token-file", &token_file];
    assert!(said(&mut at_home(&bench, &arguments)).success().stdout.starts_with("no fleets; "));
    let missing = bench.path("missing");
    let arguments = ["fleet", "list", "--server", plane.http(), "--token-file", &missing];
    said(&mut at_home(&bench, &arguments)).failure(1, &[&missing, "cannot be read"]);
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let bench = Bench::new();
    let made = "a certificate";
    let mut authority = CertificateParams::new(Vec::new()).expect(made);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect(made);
    let ca = bench.file("ca.pem", authority.self_signed(&key).expect(made).pem().as_bytes());
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().expect(made);
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect(made);
    let chain = bench.file("chain.pem", leaf.signed_by(&key, &issuer).expect(made).pem().as_bytes());
    let key = bench.file("key.pem", key.serialize_pem().as_bytes());
    let plane = Plane::start(&bench, "data", &["--http-tls-certificate", &chain, "--http-tls-key", &key]);
    let server = plane.http().replace("http://", "https://");

    let untrusted = login(&bench, &[&server], plane.token());
    untrusted.failure(6, &[&server, "invalid peer certificate", "--ca"]);
    login(&bench, &[&server, "--ca", &key], plane.token()).failure(1, &[&key, "no certificate"]);
    let missing = bench.path("missing.pem");
    login(&bench, &[&server, "--ca", &missing], plane.token()).failure(1, &[&missing, "cannot be read"]);
    // Remembered with the login.
    login(&bench, &[&server, "--ca", &ca], plane.token()).success();
    said(&mut at_home(&bench, &["fleet", "list"])).success();
    // By argument and by variable.
    let with_token = |arguments: &[&str], variable: &str| {
        let mut command = at_home(&bench, arguments);
        said(
            command
                .env("XDG_CONFIG_HOME", bench.path("none"))
                .env("DUNLIN_TOKEN", plane.token())
                .env("DUNLIN_CA", variable),
        )
    };
    with_token(&["fleet", "list", "--server", &server], "").failure(6, &["invalid peer certificate"]);
    with_token(&["fleet", "list", "--server", &server, "--ca", &ca], "").success();
    with_token(&["fleet", "list", "--server", &server], &ca).success();
}

#[test]
fn tokens_roles_and_scopes() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let (artifact, _) = digits(&bench);
    for fleet in ["north", "south"] {
        plane.run(&["fleet", "create", fleet]);
        plane.run(&["device", "create", "--id", &format!("{fleet}-1"), "--fleet", fleet, "--hardware", "pi"]);
    }
    let made = plane.try_run(&["token", "create", "--name", "reader", "--role", "viewer"]).success();
    let lines = words(&made);
    assert_eq!(lines[0], ["a new token; it is shown only here"]);
    assert_eq!((lines[1][0], lines[2][0]), ("token", "id"));
    let (viewer, viewer_id) = (lines[1][1].to_owned(), lines[2][1].to_owned());
    let token = |arguments: &[&str]| {
        let made = plane.run(&[&["token", "create", "--name", "t"], arguments].concat());
        made["token"].as_str().expect("a token").to_owned()
    };
    let operator = token(&["--role", "operator"]);
    let north = token(&["--role", "operator", "--fleet", "north"]);
    let ci = token(&["--role", "ci", "--model", "digits"]);
    let as_token =
        |token: &str, arguments: &[&str]| said(plane.command(arguments).env("DUNLIN_TOKEN", token));

    let listed = plane.try_run(&["token", "list"]).success();
    assert_eq!(
        words(&listed)[0],
        ["id", "name", "role", "fleet", "model", "expires", "last used", "revoked"]
    );
    for secret in [&viewer, &operator, &north, &ci] {
        assert!(!listed.stdout.contains(secret.as_str()), "{}", listed.stdout);
    }
    let rows = plane.run(&["token", "list"]);
    let scopes: Vec<_> = rows
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (&row["role"], &row["fleet"], &row["model"]))
        .collect();
    assert!(scopes.contains(&(&"operator".into(), &"north".into(), &Value::Null)), "{rows}");
    assert!(scopes.contains(&(&"ci".into(), &Value::Null, &"digits".into())), "{rows}");

    as_token(&viewer, &["device", "show", "north-1"]).success();
    for change in [
        &["fleet", "create", "x"][..],
        &["fleet", "delete", "north"],
        &["claim", "create", "--fleet", "north", "--name", "k"],
        &["claim", "list", "--fleet", "north"],
        &["device", "create", "--fleet", "north", "--hardware", "pi"],
        &["device", "block", "north-1"],
        &["device", "delete", "north-1"],
        &["device", "tag", "north-1", "a=b"],
        &["model", "push", &artifact, "--name", "digits"],
        &["token", "list"],
        &["token", "create", "--name", "x", "--role", "admin"],
        &["audit"],
    ] {
        let denied = as_token(&viewer, change).failure(3, &["another role or scope"]);
        assert!(denied.stdout.is_empty(), "{change:?}");
    }
    as_token(&operator, &["token", "list"]).failure(3, &["operator"]);
    as_token(&operator, &["device", "tag", "north-1", "a=b"]).success();
    // Another fleet's devices do not even exist for this token.
    as_token(&north, &["device", "tag", "north-1", "a=c"]).success();
    as_token(&north, &["device", "tag", "south-1", "a=c"]).failure(4, &["no device \"south-1\""]);
    as_token(&north, &["fleet", "create", "east"]).failure(3, &["scope"]);
    let seen = as_token(&north, &["device", "list", "--json"]).success().json();
    assert_eq!(seen.as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!(seen[0]["id"], "north-1");
    let seen = as_token(&north, &["audit", "--json"]).success().json();
    assert!(seen.as_array().expect("a list").iter().all(|entry| entry["fleet"] == "north"), "{seen}");
    // A model's token pushes that model and nothing else.
    as_token(&ci, &["model", "push", &artifact, "--name", "digits"]).success();
    as_token(&ci, &["model", "push", &artifact, "--name", "other"]).failure(3, &["another role or scope"]);

    let revoked = plane.try_run(&["token", "revoke", &viewer_id]).success();
    assert_eq!(revoked.stdout, format!("revoked {viewer_id}\n"));
    as_token(&viewer, &["fleet", "list"]).failure(3, &["`dunlin login`"]);
    plane.try_run(&["token", "revoke", "nobody"]).failure(4, &["\"nobody\""]);
    plane
        .try_run(&["token", "create", "--name", "x", "--role", "ci", "--expires", "soon"])
        .failure(1, &["expires: a point in time must be written like 2026-01-01T12:00:00Z"]);
    let unknown = plane.try_run(&["token", "create", "--name", "x", "--role", "boss"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("'boss'") && unknown.stderr.contains("operator"), "{}", unknown.stderr);
}

#[test]
fn fleets_keys_devices_and_what_the_audit_log_says_of_them() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    assert_eq!(
        plane.try_run(&["fleet", "list"]).success().stdout,
        "no fleets; `dunlin fleet create NAME` makes one\n"
    );
    assert_eq!(plane.run(&["fleet", "list"]), Value::Array(Vec::new()));
    let made = plane.try_run(&["fleet", "create", "meters", "--description", "Water meters"]).success();
    assert!(made.stdout.starts_with("created fleet meters\n"), "{}", made.stdout);
    plane.try_run(&["fleet", "create", "meters"]).failure(5, &["\"meters\""]);
    plane.try_run(&["fleet", "create", "a b"]).failure(1, &["id: a name has 1 to 64 characters"]);
    plane.try_run(&["fleet", "show", "none"]).failure(4, &["no fleet \"none\""]);

    let key = plane.run(&[
        "claim",
        "create",
        "--fleet",
        "meters",
        "--name",
        "batch 12",
        "--uses",
        "3",
        "--serial",
        "S1",
        "--hardware",
        "pi",
        "--expires",
        "2099-01-01T00:00:00Z",
    ]);
    let claim = key["claim"].as_str().expect("a claim");
    assert!(claim.starts_with("dunlin_key_"), "{key}");
    let keys = plane.try_run(&["claim", "list", "--fleet", "meters"]).success();
    assert!(!keys.stdout.contains(claim));
    let lines = words(&keys);
    assert_eq!(lines[0], ["id", "name", "used", "use limit", "expires", "revoked", "created"]);
    assert_eq!(
        lines[1][..6],
        [key["id"].as_str().expect("an id"), "batch 12", "0", "3", "2099-01-01T00:00:00", "-"]
    );
    plane.try_run(&["claim", "create", "--fleet", "none", "--name", "k"]).failure(4, &["\"none\""]);
    plane
        .try_run(&["claim", "create", "--fleet", "meters", "--name", "k", "--uses", "0"])
        .failure(1, &["use_limit"]);
    let id = key["id"].as_str().expect("an id");
    assert_eq!(plane.try_run(&["claim", "revoke", id]).success().stdout, format!("revoked {id}\n"));
    assert!(plane.run(&["claim", "list", "--fleet", "meters"])[0]["revoked"].is_string());
    plane.try_run(&["claim", "revoke", "none"]).failure(4, &["\"none\""]);
    let authority = plane.try_run(&["claim", "ca"]).success().stdout;
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----\n"), "{authority}");
    // The name that it had at first.
    assert_eq!(plane.run(&["key", "ca"])["certificate"], authority.as_str());

    let made = plane.try_run(&[
        "device",
        "create",
        "--id",
        "kitchen-7",
        "--fleet",
        "meters",
        "--hardware",
        "pi",
        "--tag",
        "region=eu",
    ]);
    let made = made.success();
    assert!(made.stdout.contains("shown only here") && made.stdout.contains("dunlin_pw_"), "{}", made.stdout);
    plane.run(&[
        "device",
        "create",
        "--id",
        "cellar-1",
        "--fleet",
        "meters",
        "--hardware",
        "pi",
        "--tag",
        "region=us",
    ]);
    plane
        .try_run(&["device", "create", "--fleet", "none", "--hardware", "pi"])
        .failure(1, &["fleet: ", "\"none\""]);
    plane
        .try_run(&["device", "create", "--fleet", "meters", "--hardware", "pi", "--tag", "region"])
        .failure(2, &["\"region\" is no tag", "KEY=VALUE"]);
    let filtered = plane.try_run(&["device", "list", "--filter", "tags.region == \"eu\""]).success();
    let lines = words(&filtered);
    assert_eq!(lines[0], ["device", "fleet", "hardware", "connected", "last seen", "running", "tags"]);
    assert_eq!(lines[1..], [["kitchen-7", "meters", "pi", "no", "-", "-", "region=eu"]]);
    assert_eq!(plane.run(&["device", "list"]).as_array().map(Vec::len), Some(2));
    assert_eq!(plane.run(&["device", "list", "--limit", "1"])[0]["id"], "cellar-1");
    assert!(
        plane.try_run(&["device", "list", "--filter", "blocked"]).success().stdout.starts_with("no devices")
    );
    plane
        .try_run(&["device", "list", "--filter", "tags.region = \"eu\""])
        .failure(1, &["filter: '=' has no meaning here (column 13); equality is written =="]);
    plane
        .try_run(&["device", "list", "--filter", "hardwar == \"pi\""])
        .failure(1, &["no field \"hardwar\" (column 1); did you mean \"hardware\"?"]);
    let json = plane.try_run(&["device", "list", "--filter", "x", "--json"]).failure(1, &["\"x\""]);
    assert_eq!(json.json()["error"]["kind"], "failure");

    let tagged = plane.try_run(&["device", "tag", "kitchen-7", "rack=3", "region-"]).success();
    assert_eq!(tagged.stdout, "kitchen-7: rack=3\n");
    plane.try_run(&["device", "tag", "kitchen-7", "rack"]).failure(2, &["\"rack\" is no tag"]);
    assert_eq!(
        plane.try_run(&["device", "block", "kitchen-7", "--reason", "stolen"]).success().stdout,
        "blocked kitchen-7\n"
    );
    let shown = plane.try_run(&["device", "show", "kitchen-7"]).success();
    let blocked = words(&shown).into_iter().find(|line| line[0] == "blocked").expect("a line");
    assert!(blocked[1].contains("reason=stolen"), "{blocked:?}");
    plane.try_run(&["device", "block", "none"]).failure(4, &["no device \"none\""]);
    assert_eq!(plane.try_run(&["device", "unblock", "kitchen-7"]).success().stdout, "unblocked kitchen-7\n");
    plane.try_run(&["fleet", "delete", "meters"]).failure(5, &["has devices"]);
    assert_eq!(plane.try_run(&["device", "delete", "kitchen-7"]).success().stdout, "deleted kitchen-7\n");
    plane.try_run(&["device", "delete", "kitchen-7"]).failure(4, &["no device \"kitchen-7\""]);

    let audit = plane.try_run(&["audit", "--kind", "device", "--id", "kitchen-7"]).success();
    let lines = words(&audit);
    assert_eq!(lines[0], ["time", "who", "action", "kind", "what", "change"]);
    let told: Vec<(&str, &str)> = lines[1..].iter().map(|line| (line[2], line[5])).collect();
    assert_eq!(told[0], ("device.delete", "-"));
    assert!(
        told[1].0 == "device.unblock" && told[1].1.starts_with("blocked: reason=stolen since="),
        "{told:?}"
    );
    assert!(told[2].0 == "device.block" && told[2].1.starts_with("blocked: - -> reason=stolen"), "{told:?}");
    assert_eq!(told[3], ("device.change", "tags: region=eu -> rack=3"));
    assert_eq!(told[4].0, "device.create");
    let entries = plane.run(&["audit", "--kind", "device", "--id", "kitchen-7", "--limit", "2"]);
    assert_eq!(entries.as_array().map(Vec::len), Some(2));
    assert_eq!(entries[0]["before"]["tags"]["rack"], "3", "all of it for programs: {entries}");
    let who = entries[0]["principal"].as_str().expect("a principal");
    assert!(plane.run(&["audit", "--principal", who]).as_array().is_some_and(|all| all.len() > 5));
    assert_eq!(plane.try_run(&["audit", "--kind", "nothing"]).success().stdout, "no entries\n");
    assert_eq!(plane.try_run(&["audit", "--limit", "0"]).code, 2);
    let said = plane.try_run(&["audit", "--id", "kitchen-7"]);
    assert!(
        said.code == 2 && said.stderr.contains("--kind"),
        "an id names nothing by itself: {}",
        said.stderr
    );
}

#[test]
fn lists_longer_than_a_page_are_whole() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &["--http-token-rate", "100000"]);
    plane.run(&["fleet", "create", "meters"]);
    // The server gives 100 keys at a time.
    rustls::crypto::ring::default_provider().install_default().expect("nobody else chose");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
        for n in 0..230 {
            let request = client.post(format!("{}/api/v1/fleets/meters/claims", plane.http()));
            let request = request.bearer_auth(plane.token()).header("content-type", "application/json");
            let answer = request.body(format!("{{\"name\":\"key {n}\"}}")).send().await.expect("an answer");
            assert_eq!(answer.status(), 201);
        }
    });
    let keys = plane.run(&["claim", "list", "--fleet", "meters"]);
    let names: Vec<&str> =
        keys.as_array().expect("a list").iter().filter_map(|key| key["name"].as_str()).collect();
    let expected: Vec<String> = (0..230).rev().map(|n| format!("key {n}")).collect();
    assert_eq!(names, expected, "each once, the newest first");
    let table = plane.try_run(&["claim", "list", "--fleet", "meters"]).success();
    assert_eq!(table.stdout.lines().count(), 231);
    assert_eq!(
        plane.run(&["audit", "--kind", "claim", "--limit", "170"]).as_array().map(Vec::len),
        Some(170)
    );
}

#[test]
fn models_and_statistics() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let (artifact, _) = digits(&bench);
    assert!(plane.try_run(&["model", "list"]).success().stdout.starts_with("no models; `dunlin model push"));
    let pushed = plane.try_run(&["model", "push", &artifact, "--name", "digits"]).success();
    assert!(pushed.stdout.starts_with("digits version 1, digest "), "{}", pushed.stdout);
    assert_eq!(
        plane.run(&["model", "push", &artifact, "--name", "digits"])["version"],
        1,
        "the same is the same"
    );
    let rubbish = bench.file("rubbish.dunlin", b"rubbish");
    plane
        .try_run(&["model", "push", &rubbish, "--name", "digits"])
        .failure(1, &[&rubbish, "no usable artifact"]);
    let missing = bench.path("missing.dunlin");
    plane.try_run(&["model", "push", &missing, "--name", "digits"]).failure(1, &[&missing, "cannot be read"]);
    let list = plane.try_run(&["model", "list"]).success();
    let lines = words(&list);
    assert_eq!(lines[0], ["model", "latest", "created", "description"]);
    assert_eq!(lines[1][..2], ["digits", "1"]);
    let versions = plane.try_run(&["model", "show", "digits"]).success();
    assert_eq!(
        words(&versions)[0],
        ["version", "bytes", "baseline", "signed", "aliases", "created", "digest"]
    );
    let version = plane.run(&["model", "show", "digits=1"]);
    assert!(pushed.stdout.contains(version["digest"].as_str().expect("a digest")));
    plane.try_run(&["model", "show", "digits=2"]).failure(4, &["digits"]);
    plane.try_run(&["model", "show", "none"]).failure(4, &["no model \"none\""]);
    plane.try_run(&["model", "show", "digits=x"]).failure(2, &["\"x\" is no version number", "NAME=3"]);

    let stats = plane.try_run(&["stats"]).success();
    assert!(stats.stdout.ends_with("no reports\n"), "{}", stats.stdout);
    let stats = plane.try_run(&["stats", "digits"]).success();
    assert!(
        stats.stdout.starts_with("digits=1  ") && stats.stdout.contains("0 inferences"),
        "{}",
        stats.stdout
    );
    assert_eq!(plane.run(&["stats", "digits=1", "--fleet", "none"])["total"]["inferences"], 0);
    plane.try_run(&["stats", "none"]).failure(4, &["no model \"none\""]);
    plane
        .try_run(&["stats", "--from", "yesterday"])
        .failure(1, &["from: a point in time must be written like"]);
    assert_eq!(plane.try_run(&["stats", "--watch", "0"]).code, 2);
}

#[test]
fn a_server_that_is_not_there_is_worth_another_try() {
    let port = dunlin_test_servers::free_port().expect("a free port");
    let server = format!("http://127.0.0.1:{port}");
    for arguments in [&["fleet", "list"][..], &["device", "watch"], &["stats", "--watch"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(arguments).env("DUNLIN_SERVER", &server).env("DUNLIN_TOKEN", "dunlin_x");
        said(&mut command).failure(6, &[&server, "cannot be reached", "`dunlin serve`"]);
    }
    assert_eq!(dunlin(&["device", "rename", "x"]).code, 2);
}

#[test]
fn what_happens_to_devices_is_shown_as_it_happens() {
    let bench = Bench::new();
    let mut plane = Plane::start(&bench, "data", &[]);
    plane.fleet("meters");
    for id in ["pump-1", "pump-2"] {
        plane.device("meters", id);
    }
    let people = Watcher::start(&plane, &["device", "watch"]);
    let programs = Watcher::start(&plane, &["device", "watch", "pump-2", "--json"]);
    let first = Watcher::start(&plane, &["device", "watch", "--count", "1"]);
    // Blocked again and again until all of them are connected and have seen it.
    let mut seen = [false; 3];
    wait_for("the watchers", || {
        for id in ["pump-1", "pump-2"] {
            plane.run(&["device", "block", id]);
            plane.run(&["device", "unblock", id]);
        }
        for (seen, watcher) in seen.iter_mut().zip([&people, &programs, &first]) {
            *seen = *seen || watcher.lines.try_recv().is_ok();
        }
        seen == [true; 3]
    });
    assert!(first.end().0.success());
    let known = ["pump-1  blocked", "pump-1  unblocked", "pump-2  blocked", "pump-2  unblocked"];
    let line = people.line();
    assert!(known.contains(&line.as_str()), "{line:?}");
    let event: Value = serde_json::from_str(&programs.line()).expect("an object a line");
    assert_eq!((&event["device"], &event["fleet"]), (&"pump-2".into(), &"meters".into()), "{event}");

    // The server is killed and comes back: the watcher goes on by itself.
    plane.kill();
    plane.resume();
    plane.run(&["device", "tag", "pump-2", "after=restart"]);
    wait_for("events after the restart", || {
        plane.run(&["device", "block", "pump-2"]);
        plane.run(&["device", "unblock", "pump-2"]);
        plane.run(&["device", "tag", "pump-2", "again="]);
        people.lines.try_iter().any(|line| line == "pump-2  state")
    });

    programs.interrupt();
    assert_eq!(programs.end().0.signal(), Some(2), "Ctrl-C ends it");
    plane.kill();
    let (status, stderr) = people.end();
    assert_eq!(status.code(), Some(6), "{stderr}");
    assert!(stderr.contains(plane.http()) && stderr.contains("cannot be reached"), "{stderr}");
}

#[test]
fn statistics_are_shown_again_and_again() {
    let bench = Bench::new();
    let mut plane = Plane::start(&bench, "data", &[]);
    let programs = Watcher::start(&plane, &["stats", "--watch", "1", "--json"]);
    for _ in 0..2 {
        let summary: Value = serde_json::from_str(&programs.line()).expect("an object a line");
        assert_eq!(summary["items"], Value::Array(Vec::new()));
    }
    programs.interrupt();
    assert_eq!(programs.end().0.signal(), Some(2), "Ctrl-C ends it");

    // A pipe gets the same text each time, and nothing to clear a screen with.
    let mut piped = Watcher::start(&plane, &["stats", "--watch", "1"]);
    let lines: Vec<String> = (0..4).map(|_| piped.line()).collect();
    assert_eq!((lines[1].as_str(), lines[2].as_str()), ("no reports", ""));
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
    // Nobody reads any more, as behind `| head`: no failure.
    piped.lines = mpsc::channel().1;
    let (status, stderr) = piped.end();
    assert!(status.success() && stderr.is_empty(), "{stderr}");

    let people = Watcher::start(&plane, &["stats", "--watch", "1"]);
    people.line();
    plane.kill();
    let (status, stderr) = people.end();
    assert_eq!(status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("cannot be reached") && stderr.contains("`dunlin serve`"), "{stderr}");
}
