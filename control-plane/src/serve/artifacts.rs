//! Where artifacts are kept: a folder, or a bucket of an S3-compatible service.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use url::Url;

use super::StartError;
use crate::config::Config;

/// Opens the place that the settings name; a folder is made when it is not there.
pub(super) fn open(config: &Config) -> Result<Arc<dyn ObjectStore>, StartError> {
    match config.artifacts_url.as_deref() {
        None => folder(&config.data_dir.join("artifacts")),
        Some(url) => match url.split_once(':') {
            Some(("file", path)) => folder(std::path::Path::new(path.strip_prefix("//").unwrap_or(path))),
            Some(("s3", _)) => bucket(config, url),
            _ => Err(StartError::Artifacts("s3://BUCKET/PREFIX or file:PATH is expected".to_owned())),
        },
    }
}

fn folder(path: &std::path::Path) -> Result<Arc<dyn ObjectStore>, StartError> {
    let failed =
        |error: &dyn std::fmt::Display| StartError::Artifacts(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(&error))?;
    // An artifact that the registry names must survive a loss of power.
    Ok(Arc::new(store.with_fsync(true)))
}

fn bucket(config: &Config, url: &str) -> Result<Arc<dyn ObjectStore>, StartError> {
    let wrong = |message: &str| StartError::Artifacts(message.to_owned());
    let url = Url::parse(url).map_err(|_| wrong("s3://BUCKET/PREFIX is expected"))?;
    let name = url.host_str().ok_or_else(|| wrong("the bucket's name is missing: s3://BUCKET/PREFIX"))?;
    let mut builder = AmazonS3Builder::new().with_bucket_name(name).with_region(&config.artifacts_region);
    if let Some(endpoint) = &config.artifacts_endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    match (&config.artifacts_access_key, &config.artifacts_secret_key) {
        (Some(key), Some(secret)) => builder = builder.with_access_key_id(key).with_secret_access_key(secret),
        (None, None) => {}
        _ => {
            return Err(wrong(
                "artifacts.access_key and artifacts.secret_key belong together; one is missing",
            ));
        }
    }
    let store = builder.build().map_err(|error| StartError::Artifacts(error.to_string()))?;
    let prefix = url.path().trim_matches('/');
    if prefix.is_empty() { Ok(Arc::new(store)) } else { Ok(Arc::new(PrefixStore::new(store, prefix))) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use object_store::ObjectStoreExt as _;
    use object_store::path::Path;

    use super::*;

    fn open_with(settings: &[(&str, &str)]) -> Result<Arc<dyn ObjectStore>, StartError> {
        let flags: BTreeMap<String, String> =
            settings.iter().map(|(flag, value)| ((*flag).to_owned(), (*value).to_owned())).collect();
        open(&Config::load(None, &BTreeMap::new(), &flags).expect("settings").0)
    }

    #[tokio::test]
    async fn a_folder_is_made_and_keeps_what_is_put() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a b");
        let store = open_with(&[("artifacts-url", &format!("file:{}", path.display()))]).expect("a store");
        store.put(&Path::from("x/y"), "bytes".into()).await.expect("put");
        assert_eq!(std::fs::read(path.join("x/y")).expect("a file"), b"bytes");
    }

    #[test]
    fn wrong_places_are_named() {
        super::super::tls::install_crypto();
        let message = |settings: &[(&str, &str)]| match open_with(settings) {
            Ok(store) => panic!("{store}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            message(&[("artifacts-url", "ftp://x")]),
            "artifacts.url: s3://BUCKET/PREFIX or file:PATH is expected"
        );
        assert_eq!(
            message(&[("artifacts-url", "s3://b"), ("artifacts-access-key", "k")]),
            "artifacts.url: artifacts.access_key and artifacts.secret_key belong together; one is missing"
        );
        let s3 = [
            ("artifacts-url", "s3://bucket/models"),
            ("artifacts-endpoint", "http://127.0.0.1:9000"),
            ("artifacts-access-key", "k"),
            ("artifacts-secret-key", "s"),
        ];
        open_with(&s3).expect("a bucket");
    }
}
