//! The pages in a real browser: a workbook from the form to its results, and without a script.

mod chromium;

use std::{path::Path, sync::Arc};

use ingestd::{access::Role, config::Config, daemon::Daemon};
use rust_xlsxwriter::Workbook;
use tokio_util::sync::CancellationToken;

use super::{server::Server, token::make};
use crate::process::until;
use chromium::Browser;

/// Names that are elements, should they ever not be text.
const PRODUCT: &str = "<img src=x onerror=alert(1)> & <b>Saw</b>";
const FILE: &str = "prices <img src=x onerror=alert(2)>.xlsx";

/// Writes a workbook of `n_good` rows and one whose price is none.
fn workbook(path: &Path, n_good: u32) {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    for (column, name) in [(0, "code"), (1, "name"), (2, "price"), (3, "stock")] {
        sheet.write(0, column, name).unwrap();
    }
    for row in 1..=n_good {
        sheet.write(row, 0, format!("{row:05}")).unwrap();
        sheet.write(row, 1, PRODUCT).unwrap();
        sheet.write(row, 2, f64::from(row)).unwrap();
        sheet.write(row, 3, row).unwrap();
    }
    sheet.write(n_good + 1, 0, "bad").unwrap();
    sheet.write(n_good + 1, 1, PRODUCT).unwrap();
    sheet
        .write(n_good + 1, 2, "<script>alert(3)</script>")
        .unwrap();
    workbook.save(path).unwrap();
}

/// Starts what imports, over the server's database and files.
async fn daemon(server: &Server) -> Daemon {
    let mut config = Config::default();
    config.database.url = Some(server.db.url().into());
    config.storage.dir = server.dir.path().to_owned();
    Daemon::start(Arc::new(config)).await.unwrap()
}

/// Expects a page that everybody can use: named fields, one heading, no element of a file's.
fn is_for_all(browser: &mut Browser) {
    for (what, expression) in [
        ("a language", "document.documentElement.lang === 'en'"),
        (
            "one heading",
            "document.querySelectorAll('h1').length === 1",
        ),
        (
            "a label for each field",
            "[...document.querySelectorAll('input:not([type=hidden]), select')].every(e => e.labels.length)",
        ),
        (
            "a text for each button and link",
            "[...document.querySelectorAll('button, a')].every(e => e.textContent.trim())",
        ),
        (
            "no foreign element",
            "!document.querySelector('main img, main b, main script')",
        ),
        ("no word broken over two lines", WHOLE_WORDS),
        ("text that can be read", READABLE),
        (
            "no wider than the window",
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth",
        ),
    ] {
        let found = browser.eval(expression);
        if found != true {
            let wide = "location.pathname + ': ' + [...document.querySelectorAll('main *')]
                .filter(e => e.getBoundingClientRect().right > innerWidth)
                .map(e => e.outerHTML.slice(0, 200)).join('\\n')";
            panic!("not {what} on {}: {found}", browser.eval(wide));
        }
    }
}

/// True where no cell of a table breaks a single short word; else the words.
const WHOLE_WORDS: &str = "(() => {
    const broken = [];
    for (const cell of document.querySelectorAll('main td, main th')) {
        const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            const word = texts.currentNode.data.trim();
            if (!word || /[\\s-]/.test(word) || word.length > 24) continue;
            const range = document.createRange();
            range.selectNode(texts.currentNode);
            const lines = [...range.getClientRects()].map((r) => Math.round(r.bottom));
            if (new Set(lines).size > 1) broken.push(word);
        }
    }
    return broken.length ? broken.join(' ') : true;
})()";

/// True where all text stands out from what is behind it, 4.5 to 1 (WCAG 2.2, 1.4.3), else the
/// elements. Judges the scheme that is set.
const READABLE: &str = include_str!("readable.js");

/// Expects that the key Tab leads to everything that can be acted on, and shows where it is.
fn by_keyboard(browser: &mut Browser) {
    let n_steps = browser
        .eval(&format!("{ACTED_ON}.length"))
        .as_i64()
        .unwrap()
        + 10;
    for _ in 0..n_steps {
        browser.key("Tab", 9, "");
        let shown = "(() => { const e = document.activeElement; e.dataset.met = 1;
            const s = getComputedStyle(e);
            return e === document.body || s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2
                || e.outerHTML.slice(0, 200); })()";
        assert_eq!(browser.eval(shown), true);
    }
    let missed = format!(
        "{ACTED_ON}.filter(e => !e.dataset.met).map(e => e.outerHTML.slice(0, 200)).join('\\n')"
    );
    assert_eq!(browser.eval(&missed), "");
}

const ACTED_ON: &str =
    "[...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary')]
    .filter(e => e.checkVisibility({ contentVisibilityAuto: true }))";

#[tokio::test(flavor = "multi_thread")]
async fn a_workbook_goes_from_the_form_to_its_results() {
    let server = Server::start().await;
    let token = make(&server, "ada", Role::Operator, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    workbook(&file, 30);
    let mut browser = Browser::launch();
    // Who is not known signs in, by keyboard, and is where he wanted to be.
    browser.goto(&server.url("/imports"));
    browser.until("location.pathname === '/sign-in'");
    is_for_all(&mut browser);
    assert_eq!(browser.eval("document.activeElement.id"), "token");
    browser.type_text(&token);
    browser.key("Enter", 13, "\r");
    browser.until("location.pathname === '/imports' && document.querySelector('#upload')");
    assert_eq!(
        browser.eval("document.cookie"),
        "",
        "no script reads the cookie"
    );
    is_for_all(&mut browser);
    by_keyboard(&mut browser);
    browser.choose("#file", &file);
    browser.press("#upload p > button");
    browser.until(
        "location.pathname.match(/^\\/imports\\/\\d+$/) && document.querySelector('progress')",
    );
    let id = browser
        .eval("Number(location.pathname.split('/').pop())")
        .as_i64()
        .unwrap();
    is_for_all(&mut browser);
    // Nobody works yet: the page waits, and is never loaded again from here on.
    browser.eval("window.mark = document.documentElement.dataset.mark = 1");
    browser.until("document.querySelector('[data-state]').textContent === 'pending'");
    sqlx::query("UPDATE catalog.imports SET created_count = 12 WHERE id = $1")
        .bind(id)
        .execute(server.pool())
        .await
        .unwrap();
    sqlx::query("UPDATE ingestd.runs SET items_total = 31, items_ok = 12 WHERE id = $1")
        .bind(id)
        .execute(server.pool())
        .await
        .unwrap();
    browser.until("document.querySelector('[data-count=created]').textContent === '12'");
    browser.until("document.querySelector('[data-progress]').textContent === '12 of 31 (38 %)'");
    assert_eq!(
        browser.eval("document.querySelector('progress').position"),
        12.0 / 31.0
    );
    assert_eq!(
        browser.eval("document.querySelector('#say').textContent"),
        "30 %"
    );
    for undo in [
        "UPDATE catalog.imports SET created_count = 0 WHERE id = $1",
        "UPDATE ingestd.runs SET items_ok = 0 WHERE id = $1",
    ] {
        sqlx::query(undo)
            .bind(id)
            .execute(server.pool())
            .await
            .unwrap();
    }
    let daemon = daemon_between_two_looks(&mut browser, &server, id).await;
    browser.until("document.querySelector('[data-state]').textContent === 'completed'");
    assert_eq!(
        browser.eval("document.querySelector('progress').position"),
        1.0
    );
    assert_eq!(
        browser.eval("document.querySelector('[data-progress]').textContent"),
        "31 of 31 (100 %)"
    );
    browser.until("document.querySelector('#say').textContent === 'completed'");
    assert_eq!(browser.eval("window.mark"), 1, "the page was loaded again");
    for (name, count) in [("created", "30"), ("updated", "0"), ("rejected", "1")] {
        let shown = format!("document.querySelector('[data-count={name}]').textContent");
        assert_eq!(browser.eval(&shown), count, "{name}");
    }
    let errors = "[...document.querySelectorAll('section[aria-labelledby=errors] td')].map(e => e.textContent).join('|')";
    let errors = browser.eval(errors);
    assert!(
        errors.as_str().unwrap().starts_with("32|price|")
            && errors
                .as_str()
                .unwrap()
                .contains("<script>alert(3)</script>"),
        "{errors}"
    );
    is_for_all(&mut browser);
    let csv = browser.download("a[href$='errors.csv']");
    let csv = String::from_utf8(csv).unwrap();
    assert!(csv.contains("bad") && csv.contains("alert(3)"), "{csv}");
    let xlsx = browser.download("a[href$='errors.xlsx']");
    assert!(xlsx.starts_with(b"PK"), "{} bytes", xlsx.len());
    undo(&mut browser);
    in_every_size(&mut browser, &server, id).await;
    pictures(&mut browser, &server);
    browser.is_content();
    browser.goto(&server.url("/imports"));
    refused_by_keyboard(&mut browser, folder.path()); // which the console tells of
    daemon.stop(CancellationToken::new()).await;
}

/// A file that is refused is told of, and whoever sent it stays in the form.
fn refused_by_keyboard(browser: &mut Browser, folder: &Path) {
    let file = folder.join("a.csv");
    std::fs::write(&file, "nothing,known\n1,2\n").unwrap();
    browser.choose("#file", &file);
    browser.eval("document.querySelector('#upload p > button').focus(); 1");
    browser.key("Enter", 13, "\r");
    browser.until("document.querySelector('#upload [role=alert]').textContent.includes('code')");
    assert_eq!(
        browser.eval("document.activeElement.closest('#upload') !== null"),
        true
    );
}

/// Starts a daemon when the page has heard that the run has begun, and lets the page look what else
/// there is to show when the run is over.
async fn daemon_between_two_looks(browser: &mut Browser, server: &Server, id: i64) -> Daemon {
    browser.eval("document.hold = new Promise(go => { document.go = go }); 1");
    browser.eval("window.fetch = (f => (...it) => document.hold.then(() => f(...it)))(fetch); 1");
    sqlx::query("UPDATE ingestd.runs SET state = 'running', heartbeat_at = now() WHERE id = $1")
        .bind(id)
        .execute(server.pool())
        .await
        .unwrap();
    browser.until("document.querySelector('#say').textContent === 'running'");
    let daemon = daemon(server).await;
    until("the import is over", || async {
        let state = "SELECT state = 'completed' FROM ingestd.runs WHERE id = $1";
        let state = sqlx::query_scalar(state).bind(id);
        state.fetch_one(server.pool()).await.unwrap()
    })
    .await;
    browser.eval("document.go(); 1");
    daemon
}

/// Looks at every page with something on it, wide and dark and as narrow as a telephone.
async fn in_every_size(browser: &mut Browser, server: &Server, id: i64) {
    sqlx::query(
        "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
                                        error, fingerprint, created_at)
         VALUES (1000000, 'system.noop', '{}', 'default', 1, 3, 0, 'fatal', repeat('why ', 30), 7, now())",
    )
    .execute(server.pool())
    .await
    .unwrap();
    let (import, run) = (format!("/imports/{id}"), format!("/runs/{id}"));
    let undone = format!("/imports/{id}/undo");
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light")] {
        browser.size(width, 740);
        browser.scheme(scheme);
        for path in [
            "/",
            "/imports",
            &import,
            &undone,
            "/runs",
            &run,
            "/queues",
            "/dead",
            "/dead?fingerprint=0000000000000007&kind=system.noop",
            "/schedules",
        ] {
            browser.goto(&server.url(path));
            is_for_all(browser);
        }
    }
}

/// Undoes the import that is shown, through its preview.
fn undo(browser: &mut Browser) {
    browser.press("a[href$='/undo']");
    browser.until("document.querySelector('[data-count=archived]')?.textContent === '30' && document.querySelector('.danger')");
    is_for_all(browser);
    browser.press(".danger");
    browser.until("document.querySelector('[data-state]')?.textContent === 'completed'");
    assert_eq!(
        browser.eval("document.querySelector('[data-count=archived]').textContent"),
        "30"
    );
}

/// Keeps pictures for the README, where that is asked for: the sample's import.
fn pictures(browser: &mut Browser, server: &Server) {
    if std::env::var_os("INGESTD_BLESS").is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    browser.size(1280, 800);
    browser.goto(&server.url("/imports"));
    browser.choose("#file", &root.join("samples/products.xlsx"));
    browser.press("#upload p > button");
    browser.until("document.querySelector('[data-state]')?.textContent === 'completed'");
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        let path = root.join(format!("docs/page-{scheme}.png"));
        std::fs::write(path, browser.picture()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_script_it_is_the_same() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    workbook(&file, 3);
    let mut browser = Browser::launch();
    browser.scripts(false);
    let daemon = daemon(&server).await;
    browser.goto(&server.url("/imports"));
    browser.choose("#file", &file);
    browser.press("#dry_run");
    browser.press("#upload p > button");
    // The page comes again by itself until the import has ended.
    browser.until("document.querySelector('[data-state]')?.textContent === 'completed'");
    assert_eq!(
        browser.eval("document.querySelector('[data-count=created]').textContent"),
        "3"
    );
    let shown = browser.eval("document.querySelector('main').innerText");
    let shown = shown.as_str().unwrap();
    assert!(
        shown.contains("A dry run") && shown.contains("New products, the first 3"),
        "{shown}"
    );
    assert!(shown.contains(PRODUCT), "{shown}");
    is_for_all(&mut browser);
    browser.is_content();
    daemon.stop(CancellationToken::new()).await;
}
