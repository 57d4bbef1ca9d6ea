//! Certificates that tests make, and those that devices were given.

#![allow(dead_code, reason = "every test file uses another part")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::Bench;

/// Who signs.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// A new one; its certificate and key are in the bench's files `NAME.pem` and `NAME.key`.
    pub(crate) fn new(bench: &Bench, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).expect("a certificate");
        bench.file(&format!("{name}.pem"), certificate.pem().as_bytes());
        bench.file(&format!("{name}.key"), key.serialize_pem().as_bytes());
        Authority(Issuer::new(params, key))
    }

    /// The one whose certificate and key are in these files.
    pub(crate) fn read(certificate: &str, key: &str) -> Self {
        let text = |path: &str| fs::read_to_string(path).expect(path);
        let pair = KeyPair::from_pem(&text(key)).expect("a key");
        Authority(Issuer::from_ca_cert_pem(&text(certificate), pair).expect("an authority"))
    }

    /// A certificate for this machine, as a server and as a client called `name`; the paths of its files.
    pub(crate) fn issue(&self, bench: &Bench, name: &str) -> [String; 2] {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let chain = bench.file(&format!("{name}.pem"), certificate.pem().as_bytes());
        [chain, bench.file(&format!("{name}.key"), key.serialize_pem().as_bytes())]
    }

    /// A device's certificate that was valid until an hour ago.
    pub(crate) fn expired(&self, device: &str, key: &str) -> String {
        let hours = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, device);
        params.serial_number = Some(SerialNumber::from_slice(&[0x55; 16]));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = hours(30).into();
        params.not_after = hours(1).into();
        let key = KeyPair::from_pem(key).expect("a key");
        params.signed_by(&key, &self.0).expect("a certificate").pem()
    }

    /// A list that revokes nothing.
    pub(crate) fn empty_list(&self) -> String {
        let params = CertificateRevocationListParams {
            this_update: (SystemTime::now() - Duration::from_secs(3600)).into(),
            next_update: (SystemTime::now() + Duration::from_secs(86_400)).into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).expect("a list").pem().expect("PEM")
    }
}

/// What an enrolled device knows about itself, in its state folder.
pub(crate) struct IdentityFile(String);

impl IdentityFile {
    pub(crate) fn of(bench: &Bench, device: &str) -> Self {
        IdentityFile(bench.path(&format!("{device}/identity.json")))
    }

    fn read(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(&self.0).expect("an identity")).expect("JSON")
    }

    /// The device's certificate and key.
    pub(crate) fn pair(&self) -> [String; 2] {
        let identity = self.read();
        ["certificate", "key"].map(|part| identity["credential"][part].as_str().expect(part).to_owned())
    }

    /// Gives the device another certificate for its key.
    pub(crate) fn replace_certificate(&self, certificate: &str) {
        let mut identity = self.read();
        identity["credential"]["certificate"] = certificate.into();
        fs::write(&self.0, identity.to_string()).expect("written");
    }

    /// Makes the device forget who it is; what it has counted stays.
    pub(crate) fn remove(&self) {
        fs::remove_file(&self.0).expect("it was there");
    }

    /// What speaks TLS with the device's certificate and trusts `ca`.
    pub(crate) fn tls(&self, ca: &str) -> Arc<ClientConfig> {
        let [certificate, key] = self.pair();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("a root");
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        Arc::new(builder.with_client_auth_cert(chain, key).expect("a certificate for its key"))
    }
}
