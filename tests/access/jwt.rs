//! JWTs as bearer tokens: whom they speak for, every known attack, and an issuer that rotates its keys or is away.

use super::token;
use crate::support::{
    TestApp,
    app::{Builder, SOON, json, problem},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use landfall_core::tokens::TokenScope;
use landfall_test_servers::wait_until;
use reqwest::Response;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use serde_json::{Value, json as object};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "landfall";
const SECRET: &str = "a secret of more than thirty-two bytes";

/// A private key for tests, in PKCS#8.
const RSA_KEY: &[u8] = include_bytes!("rsa_test_key.pk8");

/// Settings with which [`hs256`] makes valid tokens.
pub(super) fn with_secret(builder: Builder) -> Builder {
    let builder = builder.set("auth.mode", "tokens");
    let builder = builder.set("auth.jwt.secret", SECRET);
    builder
        .set("auth.jwt.issuer", ISSUER)
        .set("auth.jwt.audience", AUDIENCE)
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// Valid claims of this owner.
fn claims(owner: &str, scopes: &str) -> Value {
    object!({"iss": ISSUER, "aud": AUDIENCE, "sub": owner, "scope": scopes, "exp": now() + 600})
}

fn changed(mut claims: Value, name: &str, value: Value) -> Value {
    match value.is_null() {
        true => drop(claims.as_object_mut().unwrap().remove(name)),
        false => claims[name] = value,
    }
    claims
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn signed(header: Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(&header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn hs256_of(claims: &Value) -> String {
    let header = object!({"alg": "HS256", "typ": "JWT"});
    signed(header, claims, |message| {
        hmac_sha256(SECRET.as_bytes(), message)
    })
}

/// A valid token of this owner, for [`with_secret`].
pub(super) fn hs256(owner: &str, scopes: &str) -> String {
    hs256_of(&claims(owner, scopes))
}

/// An expired token of this owner, for [`with_secret`].
pub(super) fn expired(owner: &str, scopes: &str) -> String {
    hs256_of(&changed(
        claims(owner, scopes),
        "exp",
        object!(now() - 3600),
    ))
}

async fn list(app: &TestApp, token: &str) -> Response {
    let request = app.get("/v1/files").bearer_auth(token);
    request.send().await.unwrap()
}

async fn rejected(app: &TestApp, what: &str, token: &str) {
    let told = list(app, token).await;
    assert_eq!(told.status(), 401, "{what}: {:?}", told.text().await);
    let unknown = list(app, "lf_unknown").await;
    let text = |mut problem: Value| {
        problem.as_object_mut().unwrap().remove("request_id");
        problem
    };
    let told = problem(list(app, token).await, 401, "unauthorized").await;
    let unknown = problem(unknown, 401, "unauthorized").await;
    assert_eq!(
        text(told),
        text(unknown),
        "{what}: rejected like any other token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_speaks_for_its_owner_within_its_scopes() {
    let app = with_secret(TestApp::builder()).workers(&[]).start().await;
    let (alice, bob) = (hs256("alice", "openid upload read"), hs256("bob", "read"));
    let sent = app
        .post("/v1/files?filename=a")
        .bearer_auth(&alice)
        .body("bytes");
    let file = json(sent.send().await.unwrap(), 202).await;
    assert_eq!(file["owner"], "alice");
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let of = async |token: &str| app.get(&path).bearer_auth(token).send().await.unwrap();
    json(of(&alice).await, 200).await;
    problem(of(&bob).await, 404, "not_found").await;
    json(of(&hs256("root", "admin")).await, 200).await;
    let sent = app
        .post("/v1/files?filename=a")
        .bearer_auth(&bob)
        .body("bytes");
    problem(sent.send().await.unwrap(), 403, "forbidden").await;
    let hooks = app.get("/v1/webhooks").bearer_auth(&alice).send().await;
    problem(hooks.unwrap(), 403, "forbidden").await;
    // Scopes that do not exist here permit nothing.
    for scopes in [
        "",
        "openid profile",
        "Admin",
        "administrator",
        "read,admin",
        "*",
    ] {
        problem(list(&app, &hs256("alice", scopes)).await, 403, "forbidden").await;
    }
    let as_list = changed(claims("alice", ""), "scope", object!(["read", "x"]));
    json(list(&app, &hs256_of(&as_list)).await, 200).await;
    // Tokens made here work as before.
    let own = token(&app, "alice", &[TokenScope::Read]).await;
    json(of(&own).await, 200).await;
    // A token for several services names all of them.
    let several = changed(claims("alice", "read"), "aud", object!(["other", AUDIENCE]));
    json(list(&app, &hs256_of(&several)).await, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_expired_and_foreign_tokens_are_rejected_like_unknown_ones() {
    let app = with_secret(TestApp::builder()).workers(&[]).start().await;
    let good = claims("alice", "admin");
    json(list(&app, &hs256_of(&good)).await, 200).await;
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = object!({"alg": alg, "typ": "JWT"});
        let unsigned = format!("{}.{}.", encoded(&header), encoded(&good));
        rejected(&app, alg, &unsigned).await;
        rejected(&app, alg, unsigned.trim_end_matches('.')).await;
        let signed = signed(header, &good, |message| {
            hmac_sha256(SECRET.as_bytes(), message)
        });
        rejected(&app, alg, &signed).await;
    }
    // Another algorithm than the configured one, with its right secret.
    for (alg, algorithm) in [("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
        let sign = |message: &[u8]| {
            let key = hmac::Key::new(algorithm, SECRET.as_bytes());
            hmac::sign(&key, message).as_ref().to_vec()
        };
        rejected(&app, alg, &signed(object!({"alg": alg}), &good, sign)).await;
    }
    for secret in ["", "a secret of more than thirty-two byteS"] {
        let sign = |message: &[u8]| hmac_sha256(secret.as_bytes(), message);
        rejected(
            &app,
            "other secret",
            &signed(object!({"alg": "HS256"}), &good, sign),
        )
        .await;
    }
    for (what, claim, value) in [
        ("expired", "exp", object!(now() - 120)),
        ("never expires", "exp", Value::Null),
        ("expires in words", "exp", object!("9999999999")),
        ("expired long ago", "exp", object!(-1)),
        ("not yet valid", "nbf", object!(now() + 120)),
        ("valid from a word", "nbf", object!("0")),
        ("other audience", "aud", object!("other")),
        ("other audiences", "aud", object!(["other", "landfall2"])),
        ("no audience", "aud", Value::Null),
        ("empty audiences", "aud", object!([])),
        (
            "other issuer",
            "iss",
            object!("https://id.example.com.evil.example"),
        ),
        ("no issuer", "iss", Value::Null),
        (
            "issuer with a slash",
            "iss",
            object!("https://id.example.com/"),
        ),
        ("no owner", "sub", Value::Null),
        ("owner that is a number", "sub", object!(7)),
        ("empty owner", "sub", object!("")),
        ("owner with a control character", "sub", object!("a\nb")),
        ("long owner", "sub", object!("a".repeat(256))),
    ] {
        rejected(&app, what, &hs256_of(&changed(good.clone(), claim, value))).await;
    }
    let token = hs256_of(&good);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = encoded(&claims("root", "admin"));
    for (what, forged) in [
        ("other claims", format!("{header}.{other}.{signature}")),
        ("no signature", format!("{message}.")),
        ("two parts", message.to_owned()),
        ("four parts", format!("{token}.{signature}")),
        ("cut off", token[..token.len() - 1].to_owned()),
        ("padded", format!("{token}=")),
        ("no JSON", format!("e30.e30.{signature}")),
        ("with a prefix", format!("lf_{token}")),
    ] {
        rejected(&app, what, &forged).await;
    }
    let critical = object!({"alg": "HS256", "crit": ["x"], "x": 1});
    let sign = |message: &[u8]| hmac_sha256(SECRET.as_bytes(), message);
    rejected(&app, "critical extension", &signed(critical, &good, sign)).await;
    let huge = changed(good.clone(), "padding", object!("a".repeat(20_000)));
    rejected(&app, "huge", &hs256_of(&huge)).await;
    // Clocks differ a little.
    for (claim, seconds) in [("exp", -30), ("nbf", 30)] {
        let near = changed(good.clone(), claim, object!(now() + seconds));
        json(list(&app, &hs256_of(&near)).await, 200).await;
    }
}

/// An issuer whose keys change, and which can be away.
struct Issuer {
    url: String,
    response: Arc<Mutex<(u16, String)>>,
    requests: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let response = Arc::new(Mutex::new((200, object!({"keys": []}).to_string())));
        let requests = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (Arc::clone(&response), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = socket.read(&mut head).await;
                count.fetch_add(1, Ordering::SeqCst);
                let (status, body) = answer.lock().unwrap().clone();
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} S\r\nLocation: /jwks.json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                let _ = socket.write_all(text.as_bytes()).await;
            }
        });
        Self {
            url,
            response,
            requests,
        }
    }

    fn answers(&self, status: u16, body: impl Into<String>) {
        *self.response.lock().unwrap() = (status, body.into());
    }

    fn has(&self, keys: &[&Value]) {
        self.answers(200, object!({ "keys": keys }).to_string());
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn app(&self) -> TestApp {
        let builder = TestApp::builder().set("auth.mode", "tokens");
        let builder = builder.set("auth.jwt.jwks_url", &self.url);
        let builder = builder.set("auth.jwt.issuer", ISSUER);
        builder
            .set("auth.jwt.audience", AUDIENCE)
            .workers(&[])
            .start()
            .await
    }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key of an issuer: its JWK, and how it signs.
struct TestKey {
    jwk: Value,
    alg: &'static str,
    sign: Sign,
}

impl TestKey {
    fn rsa(id: &str) -> Self {
        let pair = RsaKeyPair::from_pkcs8(RSA_KEY).unwrap();
        let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let (n, e) = (base64(public.n), base64(public.e));
        Self {
            jwk: object!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": n, "e": e}),
            alg: "RS256",
            sign: Box::new(move |message| {
                let mut signature = vec![0; pair.public().modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }),
        }
    }

    fn ec(id: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (base64(&point[1..33]), base64(&point[33..]));
        Self {
            jwk: object!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y}),
            alg: "ES256",
            sign: Box::new(move |message| {
                pair.sign(&SystemRandom::new(), message)
                    .unwrap()
                    .as_ref()
                    .to_vec()
            }),
        }
    }

    fn ed(id: &str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap();
        let x = base64(pair.public_key());
        Self {
            jwk: object!({"kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA", "x": x}),
            alg: "EdDSA",
            sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
        }
    }

    fn token(&self) -> String {
        let header = object!({"alg": self.alg, "kid": self.jwk["kid"], "typ": "JWT"});
        self.token_with(header)
    }

    fn token_with(&self, header: Value) -> String {
        signed(header, &claims("alice", "read"), &self.sign)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_issuer_verify_the_algorithm_of_their_type() {
    let issuer = Issuer::start().await;
    let keys = [TestKey::rsa("r"), TestKey::ec("e"), TestKey::ed("d")];
    let unknown = object!({"kty": "XYZ", "kid": "x"});
    let broken = object!({"kty": "RSA", "kid": "b", "n": 7});
    let mut set = vec![&unknown, &broken];
    set.extend(keys.iter().map(|key| &key.jwk));
    issuer.has(&set);
    let app = issuer.app().await;
    for key in &keys {
        json(list(&app, &key.token()).await, 200).await;
        // Without an id, the only key of the algorithm.
        let header = object!({"alg": key.alg});
        json(list(&app, &key.token_with(header)).await, 200).await;
        for (other, id) in [
            ("RS256", "r"),
            ("ES256", "e"),
            ("EdDSA", "d"),
            ("PS256", "r"),
        ] {
            if other != key.alg {
                let header = object!({"alg": other, "kid": id});
                rejected(&app, "a signature of another key", &key.token_with(header)).await;
                let header = object!({"alg": other, "kid": key.jwk["kid"]});
                rejected(&app, "another algorithm", &key.token_with(header)).await;
            }
        }
    }
    let own = token(&app, "alice", &[TokenScope::Read]).await;
    json(list(&app, &own).await, 200).await;
    assert_eq!(list(&app, "lf_unknown").await.status(), 401);
    // All of this took the keys once, and once more for each id without a key, within bounds.
    assert!(issuer.requests() <= 5, "{}", issuer.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_is_no_secret_and_a_token_brings_no_keys() {
    let issuer = Issuer::start().await;
    let (key, mallory) = (TestKey::rsa("r"), TestKey::ed("m"));
    let oct = object!({"kty": "oct", "kid": "o", "alg": "HS256", "k": base64(SECRET)});
    let mut other_use = TestKey::ec("enc");
    other_use.jwk["use"] = object!("enc");
    issuer.has(&[&key.jwk, &oct, &other_use.jwk]);
    let app = issuer.app().await;
    json(list(&app, &key.token()).await, 200).await;
    let pair = RsaKeyPair::from_pkcs8(RSA_KEY).unwrap();
    let der = pair.public().as_ref().to_vec();
    let modulus = key.jwk["n"].as_str().unwrap();
    let pem = format!(
        "-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(&der)
    );
    for secret in [
        der,
        pem.into_bytes(),
        modulus.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(modulus).unwrap(),
        key.jwk.to_string().into_bytes(),
        SECRET.as_bytes().to_vec(),
    ] {
        for id in ["r", "o"] {
            let header = object!({"alg": "HS256", "kid": id});
            let sign = |message: &[u8]| hmac_sha256(&secret, message);
            let forged = signed(header, &claims("root", "admin"), sign);
            rejected(&app, "HS256 with a public key", &forged).await;
        }
    }
    rejected(&app, "a key for encryption", &other_use.token()).await;
    let evil = Issuer::start().await;
    evil.has(&[&mallory.jwk]);
    for (name, value) in [
        ("jwk", mallory.jwk.clone()),
        ("jku", object!(evil.url)),
        ("x5u", object!(evil.url)),
    ] {
        let header = object!({"alg": "EdDSA", "kid": "m", name: value});
        rejected(&app, name, &mallory.token_with(header)).await;
    }
    for id in [
        "../../../../dev/null",
        "/proc/self/environ",
        evil.url.as_str(),
        "r' OR '1'='1",
        "r; sleep 5",
        "r\0",
        "",
        &"k".repeat(4000),
    ] {
        let header = object!({"alg": "EdDSA", "kid": id});
        rejected(&app, id, &mallory.token_with(header)).await;
    }
    assert_eq!(evil.requests(), 0, "a token names no address");
    assert!(issuer.requests() <= 5, "{} requests", issuer.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_are_found_and_withdrawn_ones_rejected() {
    let issuer = Issuer::start().await;
    let (old, new) = (TestKey::ec("2025"), TestKey::ec("2026"));
    issuer.has(&[&old.jwk]);
    let app = issuer.app().await;
    for _ in 0..10 {
        json(list(&app, &old.token()).await, 200).await;
    }
    assert_eq!(issuer.requests(), 1, "the keys are kept");
    issuer.has(&[&new.jwk]);
    json(list(&app, &new.token()).await, 200).await;
    assert_eq!(issuer.requests(), 2);
    rejected(&app, "withdrawn", &old.token()).await;
    for number in 0..50 {
        let unknown = TestKey::ec(&format!("made-up-{number}"));
        assert_eq!(list(&app, &unknown.token()).await.status(), 401);
    }
    assert_eq!(issuer.requests(), 5, "made-up ids cause few requests");
    json(list(&app, &new.token()).await, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_issuer_is_away_known_keys_work_and_unknown_ones_are_unavailable() {
    let issuer = Issuer::start().await;
    let key = TestKey::ed("d");
    let app = issuer.app().await;
    let large = object!({"keys": ["a".repeat(300_000)]}).to_string();
    for (status, body) in [
        (302, String::new()),
        (200, "<html>".to_owned()),
        (200, large),
    ] {
        issuer.answers(status, body);
        let before = issuer.requests();
        wait_until(SOON, async || {
            let told = list(&app, &key.token()).await;
            assert_eq!(told.status(), 503);
            (issuer.requests() > before).then_some(())
        })
        .await;
        let told = list(&app, &key.token()).await;
        assert!(told.headers().contains_key("retry-after"));
        problem(told, 503, "unavailable").await;
    }
    // Tokens made here need no issuer.
    let own = token(&app, "alice", &[TokenScope::Read]).await;
    json(list(&app, &own).await, 200).await;
    issuer.has(&[&key.jwk]);
    wait_until(SOON, async || {
        let told = list(&app, &key.token()).await;
        (told.status() == 200).then_some(())
    })
    .await;
    issuer.answers(500, "");
    json(list(&app, &key.token()).await, 200).await;
    // A key that is not known now may exist: the caller should try again.
    let told = list(&app, &TestKey::ed("new").token()).await;
    problem(told, 503, "unavailable").await;
}
