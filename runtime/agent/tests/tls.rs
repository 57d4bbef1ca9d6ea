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

/// The control plane's HTTP side: answers every request to renew a certificate with a status and what `answer` makes of
/// the request's certificate and signing request (PEM).
async fn http(
    status: &'static str,
    answer: impl Fn(&str, &str) -> serde_json::Value + Send + 'static,
) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                let len = stream.read(&mut chunk).await.unwrap();
                assert_ne!(len, 0, "the request ends early");
                request.extend_from_slice(&chunk[..len]);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("POST /api/v1/enroll/renew HTTP/1.1\r\n"), "{request}");
            assert!(!request.contains("PRIVATE KEY"), "{request}");
            let body: serde_json::Value =
                serde_json::from_str(&request[request.find('{').unwrap()..]).unwrap();
            assert_eq!(body["device"], "pump-7");
            let text = |key: &str| body[key].as_str().unwrap();
            let answer = answer(text("certificate"), text("csr")).to_string();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all((head + &answer).as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_renewed_over_http() {
    let authority = Arc::new(Authority::new("devices"));
    let plane = plane(&authority).await;
    let mut before = enrolled(&plane, &authority, &authority, 200, 100);
    let Credential::Certificate { certificate: expired, .. } = before.credential.clone() else {
        unreachable!()
    };
    let signer = Arc::clone(&authority);
    before.server = http("201 Created", move |certificate, csr| {
        assert_eq!(certificate, expired);
        let csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        serde_json::json!({ "certificate": pem(&signer.sign(csr, "pump-7", 10, 86_400)), "expires": "then" })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    before.save(folder.path()).unwrap();
    let agent = Agent::start(before.clone(), settings(Some(folder.path()))).unwrap();
    let slot = agent.slot("kws", &model()).unwrap();
    infer(&slot, 3);
    let mut status = agent.watch();
    let up = status.wait_for(|status| status.connected);
    tokio::time::timeout(SOON, up).await.expect("a connection").unwrap();
    let status = agent.stop_async(SOON).await;
    assert_eq!((status.unacknowledged, plane.state().classes[3]), (0, 1));
    let after = Identity::load(folder.path()).unwrap().unwrap();
    assert_eq!(after.candidate, None);
    assert!(after.expires_at().unwrap() > before.expires_at().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_broker_refuses_does_not_replace_the_old_one() {
    let authority = Authority::new("devices");
    let plane = plane(&authority).await;
    let mut before = enrolled(&plane, &authority, &authority, 200, 100);
    // Somebody else answers.
    let stranger = Authority::new("stranger");
    before.server = http("201 Created", move |_, csr| {
        let csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        serde_json::json!({ "certificate": pem(&stranger.sign(csr, "pump-7", 10, 86_400)), "expires": "then" })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    before.save(folder.path()).unwrap();
    let agent = Agent::start(before.clone(), settings(Some(folder.path()))).unwrap();
    let from = std::time::Instant::now();
    let mut seen = false;
    loop {
        let now = Identity::load(folder.path()).unwrap().unwrap();
        assert_eq!(now.credential, before.credential);
        seen |= now.candidate.is_some();
        if seen && now == before {
            break;
        }
        assert!(from.elapsed() < SOON, "the certificate was {}", if seen { "kept" } else { "not tried" });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(agent.stop_async(Duration::ZERO).await.connections, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_may_not_renew_says_what_to_do() {
    let authority = Authority::new("devices");
    let plane = plane(&authority).await;
    let mut identity = enrolled(&plane, &authority, &authority, 200, 100);
    identity.server =
        http("403 Forbidden", |_, _| serde_json::json!({ "detail": "the device is blocked" })).await;
    let agent = Agent::start(identity, settings(None)).unwrap();
    let mut status = agent.watch();
    let down = status.wait_for(|status| {
        let because = status.disconnected_because.as_deref().unwrap_or_default();
        because.contains("the device is blocked") && because.contains("enrol the device again")
    });
    tokio::time::timeout(SOON, down).await.expect("advice").unwrap();
    assert_eq!(agent.stop_async(Duration::ZERO).await.connections, 0);
}
