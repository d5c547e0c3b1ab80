//! Workbooks that the daemon reads in a process of its own.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::{fd::OwnedFd, unix::net::UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use ingestd::ingest::product_import::sheet::{
    self, ChildLimits, Inspection, Options, Refusal, StopFlag,
};

use tempfile::TempDir;

use super::process::until;

const FIXTURES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/ingest/product_import/fixtures"
);

fn in_children() {
    sheet::read_in_children(env!("CARGO_BIN_EXE_ingestd"));
}

fn codes(path: &Path, options: &Options) -> Result<(Inspection, Vec<String>), Refusal> {
    in_children();
    let inspection = sheet::inspect(path, "", options)?;
    let mut codes = Vec::new();
    sheet::read(path, &inspection, options, &mut |chunk| {
        codes.extend(chunk.rows.into_iter().map(|row| row.code.into()));
        ControlFlow::Continue(())
    })?;
    Ok((inspection, codes))
}

#[test]
fn every_format_is_read_by_a_child() {
    for (name, format) in [("products.xls", "xls"), ("products.ods", "ods")] {
        let (inspection, codes) =
            codes(&Path::new(FIXTURES).join(name), &Options::default()).unwrap();
        assert_eq!(inspection.format.name(), format);
        assert!(codes.contains(&"00123".to_owned()), "{codes:?}");
    }
}

/// An xlsx whose sheet is not in the scanner's dialect from row `foreign` on.
fn xlsx(folder: &Path, n_rows: u32, foreign: u32) -> PathBuf {
    named_xlsx(folder, n_rows, foreign, "Lamp")
}

fn named_xlsx(folder: &Path, n_rows: u32, foreign: u32, name: &str) -> PathBuf {
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
    let relation = |kind: &str, target: &str| {
        format!(
            "<Relationships xmlns=\"{PACKAGE}\"><Relationship Id=\"rId1\" \
             Type=\"{RELATIONS}/{kind}\" Target=\"{target}\"/></Relationships>"
        )
    };
    let mut sheet = format!("<worksheet xmlns=\"{MAIN}\"><sheetData>");
    for row in 1..=n_rows {
        let text = |column: char, text: String| {
            format!("<c r=\"{column}{row}\" t=\"inlineStr\"><is><t>{text}</t></is></c>")
        };
        let (code, name) = match row {
            1 => ("code".to_owned(), "name".to_owned()),
            row if row >= foreign => (format!("C{row}"), format!("<![CDATA[{name}]]>")),
            row => (format!("C{row}"), "Lamp".to_owned()),
        };
        let cells = text('A', code) + &text('B', name);
        write!(sheet, "<row r=\"{row}\">{cells}</row>").unwrap();
    }
    sheet += "</sheetData></worksheet>";
    let book = format!(
        "<workbook xmlns=\"{MAIN}\" xmlns:r=\"{RELATIONS}\"><sheets>\
         <sheet name=\"Products\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>"
    );
    let path = folder.join("products.xlsx");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, text) in [
        ("_rels/.rels", relation("officeDocument", "xl/workbook.xml")),
        ("xl/workbook.xml", book),
        (
            "xl/_rels/workbook.xml.rels",
            relation("worksheet", "worksheets/sheet1.xml"),
        ),
        ("xl/worksheets/sheet1.xml", sheet),
    ] {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        archive.start_file(name, options).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    path
}

#[test]
fn a_child_takes_over_where_the_sheet_becomes_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let expected: Vec<String> = (2..=3000).map(|row| format!("C{row}")).collect();
    for foreign in [2, 10, 2500, 3000, 9999] {
        let path = xlsx(folder.path(), 3000, foreign);
        let (_, codes) = codes(&path, &Options::default()).unwrap();
        assert!(
            codes == expected,
            "foreign from row {foreign}: {} codes",
            codes.len()
        );
    }
}

#[test]
fn a_child_without_memory_or_time_is_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    // 15 MB in one piece, which is copied some times
    let path = named_xlsx(folder.path(), 2, 2, &"x".repeat(15 << 20));
    let limited = |child_limits: ChildLimits| Options {
        child_limits,
        ..Options::default()
    };
    let options = limited(ChildLimits {
        memory_bytes: 1 << 20,
        ..ChildLimits::default()
    });
    let refusal = codes(&path, &options).unwrap_err();
    assert_eq!(refusal.code, Refusal::READER_LIMITS, "{refusal}");
    let options = limited(ChildLimits {
        cpu: Duration::ZERO,
        ..ChildLimits::default()
    });
    let path = xlsx(folder.path(), 300_000, 2);
    let refusal = codes(&path, &options).unwrap_err();
    assert_eq!(refusal.code, Refusal::READER_LIMITS, "{refusal}");
}

#[test]
fn a_reading_that_was_stopped_ends_its_child() {
    let folder = tempfile::tempdir().unwrap();
    let path = xlsx(folder.path(), 3000, 2);
    let stop = StopFlag::default();
    stop.raise();
    let options = Options {
        stop,
        ..Options::default()
    };
    // a child that answers at once may be faster than the look at the flag
    if let Err(refusal) = codes(&path, &options) {
        assert!(refusal.is_transient(), "{refusal}");
    }
}

/// A child that has opened a file and waits to be asked, begun by a shell.
struct Waiting {
    shell: Child,
    pid: String,
    _folder: TempDir,
    _socket: UnixStream,
}

async fn waiting_child() -> Waiting {
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let told = folder.path().join("pid");
    let script = "\"$0\" read-workbook ods $$ 3000000000 60 <\"$1\" & echo $! >\"$2\"; wait";
    let shell = Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_ingestd")])
        .args([&Path::new(FIXTURES).join("products.ods"), &told])
        .stdout(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    ours.read_exact(&mut [0; 5]).unwrap();
    let pid = || std::fs::read_to_string(&told).unwrap_or_default();
    until("the child is named", || async { pid().ends_with('\n') }).await;
    let pid = pid().trim().to_owned();
    Waiting {
        shell,
        pid,
        _folder: folder,
        _socket: ours,
    }
}

/// Whoever reads a file that keeps it busy hears of nobody's end by the socket.
#[tokio::test]
async fn a_child_dies_with_the_process_that_began_it() {
    let mut child = waiting_child().await;
    let stat = format!("/proc/{}/stat", child.pid);
    let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"));
    assert!(runs());
    child.shell.kill().unwrap();
    child.shell.wait().unwrap();
    until("the child is gone", || async { !runs() }).await;
}

#[tokio::test]
async fn a_child_has_what_reading_needs_and_no_more() {
    let mut child = waiting_child().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.pid)).unwrap();
    for (name, most) in [
        ("Max cpu time", "60"),
        ("Max address space", "3000000000"),
        ("Max file size", "0"),
        ("Max open files", "32"),
        ("Max core file size", "0"),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let soft = line.unwrap().split_whitespace().next();
        assert_eq!(soft, Some(most), "{limits}");
    }
    child.shell.kill().unwrap();
    child.shell.wait().unwrap();
}
