//! A headless Chromium, controlled by WebDriver (W3C "WebDriver") through chromedriver.

use landfall_test_servers::wait_until;
use reqwest::{Client, Method};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The key of an element's id in WebDriver responses.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Timeout for a page to show an expected text.
const SOON: Duration = Duration::from_secs(20);

/// In pixels; narrower windows emulate a phone.
const NARROWEST_WINDOW: u32 = 500;

/// Non-printing keys are in WebDriver's private use area.
pub const ENTER: &str = "\u{E007}";

/// One window.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    client: Client,
}

impl Browser {
    /// Opens a window with this size.
    pub async fn open(width: u32, height: u32) -> Self {
        let program = std::env::var("LANDFALL_TEST_CHROMEDRIVER");
        let mut driver = Command::new(program.as_deref().unwrap_or("chromedriver"))
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("no chromedriver: run scripts/test, which installs it");
        let stdout = BufReader::new(driver.stdout.take().expect("its output is piped"));
        let port = stdout.lines().map_while(Result::ok).find_map(|line| {
            let port = line
                .split_once("successfully on port ")?
                .1
                .trim_end_matches('.');
            port.parse::<u16>().ok()
        });
        let base = format!("http://127.0.0.1:{}", port.expect("it says on which port"));
        let mut browser = Self {
            driver,
            session: format!("{base}/session"),
            client: Client::new(),
        };
        let capabilities = capabilities(width, height);
        let opened = browser.send(Method::POST, "", capabilities).await;
        let id = opened["sessionId"].as_str().expect("a session");
        browser.session = format!("{base}/session/{id}");
        browser
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Value {
        self.try_send(method, path, body)
            .await
            .unwrap_or_else(|problem| panic!("{path}: {problem}"))
    }

    async fn try_send(&self, method: Method, path: &str, body: Value) -> Result<Value, Value> {
        let url = format!("{}{path}", self.session);
        let request = self.client.request(method.clone(), url);
        let request = match method {
            Method::POST => request.json(&body),
            _ => request,
        };
        let answer = request.send().await.expect("chromedriver answers");
        let is_good = answer.status().is_success();
        let mut answer: Value = answer.json().await.expect("chromedriver answers JSON");
        match is_good {
            true => Ok(answer["value"].take()),
            false => Err(answer["value"].take()),
        }
    }

    /// Emulates a dark or light desktop theme.
    pub async fn theme(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        let call =
            json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.send(Method::POST, "/goog/cdp/execute", call).await;
    }

    pub async fn go(&self, url: &str) {
        self.send(Method::POST, "/url", json!({ "url": url })).await;
    }

    /// Returns the path and query of the page.
    pub async fn path(&self) -> String {
        let url = self.send(Method::GET, "/url", Value::Null).await;
        let url: url::Url = url.as_str().expect("a URL").parse().expect("a URL");
        match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        }
    }

    /// Waits until the page has this path and query.
    pub async fn comes_to(&self, path: &str) {
        wait_until(SOON, async || (self.path().await == path).then_some(())).await;
    }

    /// Returns the visible text of the page.
    pub async fn text(&self) -> String {
        let text = self.run("return document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    pub async fn run(&self, script: &str) -> Value {
        let call = json!({ "script": script, "args": [] });
        self.send(Method::POST, "/execute/sync", call).await
    }

    /// Waits until the page shows this.
    pub async fn sees(&self, text: &str) {
        wait_until(SOON, async || {
            let page = self.text().await;
            match page.contains(text) {
                true => Ok(()),
                false => Err(format!("a page without `{text}`: {page}")),
            }
        })
        .await;
    }

    async fn element(&self, selector: &str) -> String {
        let query = json!({ "using": "css selector", "value": selector });
        let found = wait_until(SOON, async || {
            self.try_send(Method::POST, "/element", query.clone())
                .await
                .ok()
        });
        found.await[ELEMENT]
            .as_str()
            .expect("an element")
            .to_owned()
    }

    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        let path = format!("/element/{element}/click");
        self.send(Method::POST, &path, json!({})).await;
    }

    /// Returns the visible text of a frame, or the browser's message if it shows none.
    pub async fn text_in_frame(&self, selector: &str) -> String {
        let element = self.element(selector).await;
        let frame = json!({ "id": { ELEMENT: element } });
        self.send(Method::POST, "/frame", frame).await;
        let text = self.text().await;
        self.send(Method::POST, "/frame", json!({ "id": null }))
            .await;
        text
    }

    /// Types into an element.
    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        let path = format!("/element/{element}/value");
        self.send(Method::POST, &path, json!({ "text": text }))
            .await;
    }

    /// Types into the focused element.
    pub async fn press(&self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
        });
        let actions: Vec<Value> = each.collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] });
        self.send(Method::POST, "/actions", body).await;
    }

    /// Returns the console warnings and errors since the last call.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.send(Method::POST, "/se/log", json!({ "type": "browser" }));
        let log = log.await;
        let entries = log.as_array().cloned().unwrap_or_default();
        let bad = entries
            .iter()
            .filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")));
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Returns the URLs requested since the last call.
    pub async fn requested(&self) -> Vec<String> {
        let log = self.send(Method::POST, "/se/log", json!({ "type": "performance" }));
        let log = log.await;
        let entries = log.as_array().cloned().unwrap_or_default();
        let urls = entries.iter().filter_map(|entry| {
            let entry: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &entry["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            let url = message["params"]["request"]["url"].as_str()?;
            is_request.then(|| url.to_owned())
        });
        urls.collect()
    }

    pub async fn close(self) {
        self.send(Method::DELETE, "", Value::Null).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is in the driver's process group.
        if let Some(group) = i32::try_from(self.driver.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}

fn capabilities(width: u32, height: u32) -> Value {
    let mut options = json!({ "args": [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        // Another site, on this machine.
        "--host-resolver-rules=MAP evil.example 127.0.0.1",
        format!("--window-size={width},{height}"),
    ] });
    // A desktop window cannot be as narrow as a phone.
    if width < NARROWEST_WINDOW {
        options["mobileEmulation"] =
            json!({ "deviceMetrics": { "width": width, "height": height, "pixelRatio": 2.0 } });
    }
    if let Ok(program) = std::env::var("LANDFALL_TEST_CHROMIUM") {
        options["binary"] = program.into();
    }
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
    } } })
}
