//! Which setting wins, what is shown of it, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{ByteSize, Config, Effective, Mask, SETTINGS};

type Loaded = Result<(Config, Effective), String>;

fn load(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Loaded {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let file = Some((Path::new("dunlin.toml"), file));
    Config::load(file, &map(variables), &map(flags)).map_err(|error| error.to_string())
}

fn shown(effective: &Effective, key: &str) -> (String, String) {
    let (_, value, source) =
        effective.masked().into_iter().find(|(name, _, _)| *name == key).expect("the key");
    (value, source)
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file =
        "data_dir = \"/file\"\n[http]\nlisten = \"1.1.1.1:1\"\ntoken_rate = 7\n[log]\nlevel = \"debug\"\n";
    let variables = [("DUNLIN_HTTP_LISTEN", "2.2.2.2:2"), ("DUNLIN_LOG_LEVEL", "warn"), ("HOME", "/root")];
    let (config, effective) = load(file, &variables, &[("log-level", "error")]).expect("loaded");
    assert_eq!(config.log_level, "error");
    assert_eq!(config.http_listen.to_string(), "2.2.2.2:2");
    assert_eq!(config.data_dir, Path::new("/file"));
    assert_eq!((config.http_token_rate, config.http_token_burst), (7, 400));
    let sources =
        ["log.level", "http.listen", "data_dir", "http.token_burst"].map(|key| shown(&effective, key).1);
    assert_eq!(sources, ["--log-level", "DUNLIN_HTTP_LISTEN", "dunlin.toml", "default"]);
}

#[test]
fn dotted_keys_and_tables_are_the_same() {
    for file in
        ["http.listen = \"1.1.1.1:1\"", "[http]\nlisten = \"1.1.1.1:1\"", "http = { listen = \"1.1.1.1:1\" }"]
    {
        let (config, _) = load(file, &[], &[]).expect("loaded");
        assert_eq!(config.http_listen.to_string(), "1.1.1.1:1", "{file}");
    }
}

#[test]
fn secrets_are_masked() {
    let file = "
        database_url = \"postgres://dunlin:hunter2@db/dunlin?sslmode=require&password=hunter2\"
        broker.url = \"mqtts://dunlin:hunter2@broker:8883\"
        artifacts.access_key = \"key\"
        artifacts.secret_key = \"hunter2\"
    ";
    let (_, effective) = load(file, &[], &[]).expect("loaded");
    let values = ["database_url", "broker.url", "artifacts.secret_key", "artifacts.access_key"]
        .map(|key| shown(&effective, key).0);
    let expected = [
        "postgres://dunlin:********@db/dunlin?********",
        "mqtts://dunlin:********@broker:8883",
        "********",
        "key",
    ];
    assert_eq!(values, expected);
    assert!(!format!("{:?}", effective.masked()).contains("hunter2"));
    let (_, unset) = load("", &[], &[]).expect("loaded");
    assert_eq!(shown(&unset, "artifacts.secret_key").0, "", "what is not set is not masked");
    let error =
        load("database_url = \"dunlin:hunter2@db\"\nhttp.listen = \"x\"", &[], &[]).expect_err("no address");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let cases = [
        (
            "http.listne = \"x\"",
            "dunlin.toml: there is no setting \"http.listne\"; the nearest is \"http.listen\"",
        ),
        (
            "[brokers]\nurl = \"x\"",
            "dunlin.toml: there is no setting \"brokers.url\"; the nearest is \"broker.url\"",
        ),
        (
            "http.listen = \"here\"",
            "http.listen = \"here\" (from dunlin.toml): an IP address and a port are expected, as in 127.0.0.1:8080 or [::]:8080",
        ),
        (
            "http.token_rate = -1",
            "http.token_rate = \"-1\" (from dunlin.toml): a whole number from 0 to 4294967295 is expected",
        ),
        ("log.format = \"xml\"", "log.format = \"xml\" (from dunlin.toml): one of text, json is expected"),
        ("log.level = [\"a\"]", "dunlin.toml: log.level is a list; a single value is expected"),
        (
            "telemetry.keep_days = \"5\"",
            "telemetry.keep_days = \"5\" (from dunlin.toml): a duration is expected: a whole number and one of ms, s, m, h, d, as in 90s or 30d",
        ),
        ("a = 1\nb = = 2", "dunlin.toml, line 2: "),
    ];
    for (file, expected) in cases {
        let error = load(file, &[], &[]).expect_err(file);
        assert!(error.starts_with(expected), "{file}: {error}");
    }
    let error = load("", &[("DUNLIN_HTTP_LISTN", "x")], &[]).expect_err("no such variable");
    assert_eq!(
        error,
        "environment: there is no setting \"DUNLIN_HTTP_LISTN\"; the nearest is \"DUNLIN_HTTP_LISTEN\""
    );
    let error = load("", &[("DUNLIN_LOG_FORMAT", "xml")], &[]).expect_err("no such format");
    assert!(error.starts_with("log.format = \"xml\" (from DUNLIN_LOG_FORMAT)"), "{error}");
    load("", &[("DUNLIN_TOKEN", "x"), ("DUNLIN_SERVER", "y")], &[]).expect("those of other commands");
}

#[test]
fn the_table_is_consistent() {
    let mut names = std::collections::BTreeSet::new();
    for setting in SETTINGS {
        assert!(
            names.insert(setting.flag()) && names.insert(setting.variable()),
            "{}: used twice",
            setting.key
        );
        assert!(setting.doc.trim().ends_with('.'), "{}: {:?}", setting.key, setting.doc);
        let secret = ["secret", "password", "token_key"].iter().any(|word| setting.key.contains(word));
        assert!(!secret || setting.mask == Mask::Whole, "{} must be masked", setting.key);
        assert!(
            !setting.key.ends_with("url") || setting.mask == Mask::Url || setting.key == "http.public_url"
        );
    }
}

#[test]
fn durations_and_sizes_have_units() {
    let (config, _) =
        load("telemetry.keep_minutes = \"90m\"\nhttp.artifact_size = \"2 GiB\"", &[], &[]).expect("loaded");
    assert_eq!(config.telemetry_keep_minutes, Duration::from_secs(5_400));
    assert_eq!(config.http_artifact_size, ByteSize(2 << 30));
    for file in [
        "telemetry.keep_minutes = \"99999999999999999999d\"",
        "telemetry.keep_days = \"36501d\"",
        "http.artifact_size = \"99999999999999GiB\"",
    ] {
        load(file, &[], &[]).expect_err(file);
    }
}

/// What `dunlin serve --print-config` shows without any configuration: a change of a default is a change for users.
#[test]
fn the_defaults() {
    let (_, effective) = load("", &[], &[]).expect("loaded");
    let lines: Vec<String> =
        effective.masked().into_iter().map(|(key, value, _)| format!("{key} = {value}")).collect();
    let expected = include_str!("defaults.txt");
    assert_eq!(lines.join("\n"), expected.trim_end());
}

/// The table of settings as a page; it is rewritten when the variable `UPDATE_DOCS` is set.
#[test]
fn the_page_of_settings_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("SETTINGS.md");
    let mut page = "# Settings of `dunlin serve`\n\n\
        A flag wins over an environment variable, that over the configuration file (`--config FILE`, TOML), that over the \
        default. The key `http.listen` is `listen` in the table `[http]` of the file. `dunlin serve --print-config` shows \
        the effective values and where each comes from.\n\n\
        | key | variable | flag | default | meaning |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    for setting in SETTINGS {
        let default =
            if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        page += &format!(
            "| `{}` | `{}` | `--{} {}` | {default} | {} |\n",
            setting.key,
            setting.variable(),
            setting.flag(),
            setting.kind.replace('|', "\\|"),
            setting.doc.trim()
        );
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "run the test with UPDATE_DOCS=1");
}
