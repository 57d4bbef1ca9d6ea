//! Mutual TLS: the certificate made at enrolment, its renewal at two thirds of its life, and what it protects.

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dunlin_agent::identity::KeyRequest;
use dunlin_agent::{Agent, Credential, Identity};
use dunlin_gateway::tls::{ClientCertificates, ServerIdentity, server_config};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair,
};
use support::{Plane, SOON, identity, infer, model, settings};

/// A certificate authority in memory.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        Authority { issuer: Issuer::new(params, key), pem, der }
    }

    /// The server's certificate and key.
    fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A device's certificate for a request, valid from so many seconds ago for so many seconds.
    fn sign(
        &self,
        mut request: CertificateSigningRequestParams,
        device: &str,
        age_s: u64,
        life_s: u64,
    ) -> Vec<u8> {
        let from = SystemTime::now() - Duration::from_secs(age_s);
        request.params.distinguished_name.push(DnType::CommonName, device);
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params.not_before = from.into();
        request.params.not_after = (from + Duration::from_secs(life_s)).into();
        request.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

async fn plane(authority: &Authority) -> Plane {
    let (chain, key) = authority.server();
    let clients = Some((authority.pem.as_bytes(), ClientCertificates::Required));
    let identity = ServerIdentity::new(chain.as_bytes(), key.as_bytes()).unwrap();
    Plane::start_with(Some(server_config(identity, clients).unwrap())).await
}

/// A device whose certificate is so old and lives so long.
fn enrolled(plane: &Plane, authority: &Authority, trusts: &Authority, age_s: u64, life_s: u64) -> Identity {
    let request = KeyRequest::new(None).unwrap();
    let csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
    let certificate = pem(&authority.sign(csr, "pump-7", age_s, life_s));
    let mut identity = identity(plane.address, "pump-7");
    identity.mqtt.tls = true;
    identity.ca = Some(trusts.pem.clone());
    identity.credential = Credential::Certificate { certificate, key: request.key };
    identity
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_over_mqtt_and_used_after_a_restart() {
    let authority = Arc::new(Authority::new("devices"));
    let plane = plane(&authority).await;
    let signer = Arc::clone(&authority);
    plane.state().signer = Some(Arc::new(move |csr: &[u8]| {
        let csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        (signer.sign(csr, "pump-7", 10, 86_400), signer.der.clone())
    }));
    let folder = tempfile::tempdir().unwrap();
    // 70 of 100 seconds have passed.
    let before = enrolled(&plane, &authority, &authority, 70, 100);
    before.save(folder.path()).unwrap();
    let agent = Agent::start(before.clone(), settings(Some(folder.path()))).unwrap();
    let slot = agent.slot("kws", &model()).unwrap();
    infer(&slot, 3);
    let from = std::time::Instant::now();
    let renewed = loop {
        let now = Identity::load(folder.path()).unwrap().unwrap();
        if now.credential != before.credential {
            break now;
        }
        assert!(from.elapsed() < SOON, "no new certificate came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(renewed.pending_key, None);
    assert!(renewed.renew_at().unwrap() > before.renew_at().unwrap());
    agent.stop_async(SOON).await;

    let agent = Agent::start(renewed, settings(Some(folder.path()))).unwrap();
    let slot = agent.slot("kws", &model()).unwrap();
    infer(&slot, 3);
    let status = agent.stop_async(SOON).await;
    assert_eq!((status.unacknowledged, plane.state().classes[3]), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_foreign_certificates_and_foreign_servers_are_refused() {
    let (authority, stranger) = (Authority::new("devices"), Authority::new("stranger"));
    let plane = plane(&authority).await;
    let cases = [
        ("expired", enrolled(&plane, &authority, &authority, 200, 100)),
        ("signed by a stranger", enrolled(&plane, &stranger, &authority, 0, 100)),
        ("the server is a stranger", enrolled(&plane, &authority, &stranger, 0, 100)),
    ];
    for (case, identity) in cases {
        let agent = Agent::start(identity, settings(None)).unwrap();
        let slot = agent.slot("kws", &model()).unwrap();
        infer(&slot, 1);
        let mut status = agent.watch();
        let down = status.wait_for(|status| status.disconnected_because.is_some());
        let because = tokio::time::timeout(SOON, down).await.unwrap().unwrap().disconnected_because.clone();
        let because = because.unwrap();
        assert!(because.to_lowercase().contains("certificate"), "{case}: {because}");
        // What was counted is kept.
        let status = agent.stop_async(Duration::from_millis(100)).await;
        assert_eq!((status.inferences, status.connections), (1, 0), "{case}");
        assert!(status.waiting > 0, "{case}");
    }
    assert_eq!(plane.state().inferences, 0);
}
