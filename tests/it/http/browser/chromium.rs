//! A headless Chromium, driven over its own pipe: JSON commands and events, a zero byte after each.
//!
//! It blocks the thread that uses it, which must not be one that serves the pages.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::PATIENCE;

/// The browser's programs, in the order of trying.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one tab; gone with this value.
pub(super) struct Browser {
    child: Child,
    input: ChildStdin,
    told: mpsc::Receiver<Value>,
    n_sent: u64,
    session: Option<String>,
    /// What the console, the network or the content policy complained about.
    pub(super) troubles: Vec<String>,
    downloaded: usize,
    dir: TempDir,
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = PROGRAMS
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no Chromium; on Debian: sudo apt-get install chromium"))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // One that is gone already needs no end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Browser {
    /// Starts it with an empty profile and an empty tab.
    pub(super) fn launch() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The pipe is file 3 to read from and 4 to write to, which only a shell can set up.
        let script = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(program())
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-sync",
            ])
            .args([
                "--remote-debugging-pipe",
                "--force-color-profile=srgb",
                "--lang=en",
            ])
            .arg(format!(
                "--user-data-dir={}",
                dir.path().join("profile").display()
            ))
            .arg("about:blank")
            .env("HOME", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            while output.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).unwrap();
                if tell.send(message).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let mut browser = Self {
            child,
            input,
            told,
            n_sent: 0,
            session: None,
            troubles: Vec::new(),
            downloaded: 0,
            dir,
        };
        browser.open();
        browser
    }

    fn open(&mut self) {
        let made = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = made.get("targetId").unwrap();
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = self.call("Target.attachToTarget", attach);
        let session = attached.get("sessionId").and_then(Value::as_str);
        self.session = Some(session.unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "DOM", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        let behavior = json!({ "behavior": "allow", "downloadPath": self.downloads(),
                               "eventsEnabled": true });
        self.call("Browser.setDownloadBehavior", behavior);
        self.size(1280, 900);
    }

    fn downloads(&self) -> PathBuf {
        self.dir.path().join("downloads")
    }

    /// Gives a command and returns its result.
    pub(super) fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer.get("result").cloned().unwrap_or_default()
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.n_sent += 1;
        let id = self.n_sent;
        let mut command = json!({ "id": id, "method": method });
        command["params"] = params;
        let is_of_browser = method.starts_with("Target.") || method.starts_with("Browser.");
        if let (Some(session), false) = (&self.session, is_of_browser) {
            command["sessionId"] = json!(session);
        }
        self.input
            .write_all(command.to_string().as_bytes())
            .unwrap();
        self.input.write_all(b"\0").unwrap();
        loop {
            let told = self.read();
            if told.get("id") == Some(&json!(id)) {
                return told;
            }
        }
    }

    /// Reads one answer or event, and notes what is amiss.
    fn read(&mut self) -> Value {
        let told = self.told.recv_timeout(PATIENCE);
        let told = told.unwrap_or_else(|error| panic!("the browser says nothing: {error}"));
        self.note(&told);
        told
    }

    fn note(&mut self, told: &Value) {
        let at = |pointer: &str| {
            told.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        match at("/method") {
            "Runtime.exceptionThrown" => self.troubles.push(told.to_string()),
            "Runtime.consoleAPICalled"
                if ["error", "warning", "assert"].contains(&at("/params/type")) =>
            {
                self.troubles.push(told.to_string());
            }
            "Log.entryAdded" if ["error", "warning"].contains(&at("/params/entry/level")) => {
                self.troubles.push(told.to_string());
            }
            "Browser.downloadProgress" if at("/params/state") == "completed" => {
                self.downloaded += 1;
            }
            _ => {}
        }
    }

    pub(super) fn size(&mut self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Says whether scripts of pages run from now on.
    pub(super) fn scripts(&mut self, run: bool) {
        self.call(
            "Emulation.setScriptExecutionDisabled",
            json!({ "value": !run }),
        );
    }

    /// Makes the pages dark or light.
    pub(super) fn scheme(&mut self, name: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": name }]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Goes to an address and waits until it is loaded.
    pub(super) fn goto(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert!(went.get("errorText").is_none(), "{url}: {went}");
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// Evaluates an expression in the page; `None` where there is no page at the moment.
    fn try_eval(&mut self, expression: &str) -> Option<Value> {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", params);
        let result = answer.get("result")?;
        assert!(
            result.get("exceptionDetails").is_none(),
            "{expression}: {result}"
        );
        result.pointer("/result/value").cloned()
    }

    /// Evaluates an expression in the page.
    pub(super) fn eval(&mut self, expression: &str) -> Value {
        let value = self.try_eval(expression);
        value.unwrap_or_else(|| panic!("{expression} is nothing"))
    }

    /// Waits until an expression is true.
    pub(super) fn until(&mut self, expression: &str) {
        let began = Instant::now();
        while self.try_eval(&format!("Boolean({expression})")) != Some(json!(true)) {
            if began.elapsed() > PATIENCE {
                let text = self.try_eval("location.href + '\\n' + document.body.innerText");
                panic!("never: {expression}\n{text:?}\n{:?}", self.troubles);
            }
            // What it tells meanwhile may be what is waited for.
            if let Ok(told) = self.told.recv_timeout(Duration::from_millis(30)) {
                self.note(&told);
            }
        }
    }

    /// Presses the first element that a selector finds, as a mouse does.
    pub(super) fn press(&mut self, selector: &str) {
        let spot = format!(
            "(() => {{ const e = document.querySelector({selector:?});
               e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();
               return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
        );
        let spot = self.eval(&spot);
        let (x, y) = (spot.get(0).unwrap(), spot.get(1).unwrap());
        for what in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": what, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types into the element that has the focus.
    pub(super) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key that has no text, or Enter.
    pub(super) fn key(&mut self, name: &str, code: u32, text: &str) {
        for what in ["keyDown", "keyUp"] {
            let event = json!({ "type": what, "key": name, "code": name, "text": text,
                                "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Chooses a file in a field.
    pub(super) fn choose(&mut self, selector: &str, file: &Path) {
        let document = self.call("DOM.getDocument", json!({}));
        let root = document.pointer("/root/nodeId").unwrap();
        let found = json!({ "nodeId": root, "selector": selector });
        let node = self.call("DOM.querySelector", found);
        let params = json!({ "nodeId": node.get("nodeId").unwrap(), "files": [file] });
        self.call("DOM.setFileInputFiles", params);
    }

    /// Presses a link and returns the file that it downloads.
    pub(super) fn download(&mut self, selector: &str) -> Vec<u8> {
        let n_before = self.downloaded;
        self.press(selector);
        while self.downloaded == n_before {
            self.read();
        }
        let newest = std::fs::read_dir(self.downloads())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .max_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap());
        std::fs::read(newest.unwrap()).unwrap()
    }

    /// Takes a picture of what is seen.
    pub(super) fn picture(&mut self) -> Vec<u8> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let text = taken.get("data").and_then(Value::as_str).unwrap();
        STANDARD.decode(text).unwrap()
    }

    /// Expects that nothing was complained about.
    pub(super) fn is_content(&self) {
        assert!(self.troubles.is_empty(), "{:#?}", self.troubles);
    }
}
