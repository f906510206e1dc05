//! What templates make of paths, and what they refuse.

use chrono::TimeZone;
use proptest::prelude::*;

use super::*;

fn context(path: &str) -> FileContext<'_> {
    FileContext {
        path,
        mtime: Utc.timestamp_opt(1_709_164_800, 0).single(),
        run_start: Utc.timestamp_opt(1_735_689_599, 0).single().expect("a time"),
        run_id: "0193-run",
    }
}

fn key(template: &str, path: &str) -> String {
    let template: KeyTemplate = template.parse().expect(template);
    template.render(&context(path)).expect(path).into_string()
}

#[test]
fn each_placeholder_is_what_it_says() {
    for (template, rendered) in [
        ("{path}", "in/b/data.tar.gz"),
        ("{dir}", "in/b"),
        ("{name}", "data.tar.gz"),
        ("{stem}", "data.tar"),
        ("{ext}", "gz"),
        ("{run_id}", "0193-run"),
        ("{mtime:%Y/%m/%d}/{name}", "2024/02/29/data.tar.gz"),
        ("{run_start:%Y-%m-%d}", "2024-12-31"),
        ("raw/dt={run_start:%Y%m%dT%H:%M:%SZ}/{path}", "raw/dt=20241231T23:59:59Z/in/b/data.tar.gz"),
        ("latest.csv", "latest.csv"),
    ] {
        assert_eq!(key(template, "in/b/data.tar.gz"), rendered, "{template}");
    }
}

#[test]
fn a_file_at_the_top_leaves_no_nameless_folder() {
    for (template, rendered) in [
        ("{dir}/{name}", "a.csv"),
        ("in/{dir}/{name}", "in/a.csv"),
        ("in/{dir}{run_id}/{name}", "in/0193-run/a.csv"),
        ("in/x{dir}/{name}", "in/x/a.csv"),
        ("{name}/{dir}", "a.csv"),
        ("{dir}-{name}", "-a.csv"),
    ] {
        assert_eq!(key(template, "a.csv"), rendered, "{template}");
    }
    assert_eq!(key("in//{name}", "a.csv"), "in//a.csv", "what is written is kept");
}

#[test]
fn a_name_without_an_extension_leaves_no_dot() {
    for (template, path, rendered) in [
        ("{stem}.{ext}", "README", "README"),
        ("{stem}_{run_id}.{ext}", "README", "README_0193-run"),
        ("{stem}_{run_id}.{ext}", "a.csv", "a_0193-run.csv"),
        ("{stem}.{ext}", ".bashrc", ".bashrc"),
        ("{stem}.{ext}", "odd.", "odd."),
        ("by/{ext}/{name}", "README", "by/README"),
        ("x.{ext}/{name}", "README", "x/README"),
    ] {
        assert_eq!(key(template, path), rendered, "{template} of {path}");
    }
}

#[test]
fn doubled_braces_are_braces() {
    assert_eq!(key("{{{name}}}", "a"), "{a}");
    assert_eq!(key("{{path}}", "a"), "{path}");
}

#[test]
fn what_cannot_be_a_template_is_refused_with_its_reason() {
    let error = |template: &str| template.parse::<KeyTemplate>().expect_err(template);
    assert_eq!(error("in/{path"), TemplateError::Unclosed);
    assert_eq!(error("in/path}"), TemplateError::Unopened);
    assert_eq!(error("{mtime}"), TemplateError::NeedsFormat("mtime"));
    assert_eq!(error("{name:%Y}"), TemplateError::TakesNoFormat("name"));
    assert_eq!(error("/{path}"), TemplateError::LeadingSlash);
    assert_eq!(error("in/"), TemplateError::TrailingSlash("{path}"));
    for template in ["{paht}", "{}", "{Path}", "{ path }", "{entry}", "{ext_}"] {
        assert!(matches!(error(template), TemplateError::Unknown { .. }), "{template}");
    }
    for format in ["%Q", "%", "%Y-%", "%!", "%#z", ""] {
        let template = format!("{{mtime:{format}}}");
        assert!(matches!(error(&template), TemplateError::BadFormat(_)), "{template}");
    }
    assert_eq!(
        error("{mtime}").to_string(),
        "`{mtime}` needs a format, such as `{mtime:%Y/%m/%d}`",
        "braces come out once"
    );
    let unknown = error("{name}/{hunter2}").to_string();
    assert!(unknown.starts_with("placeholder 2 is unknown; there are {path}, "), "{unknown}");
}

#[test]
fn a_file_without_a_time_fails_only_where_the_time_is_asked_for() {
    let file = FileContext { mtime: None, ..context("a") };
    let render = |template: &str| template.parse::<KeyTemplate>().expect(template).render(&file);
    assert_eq!(render("{mtime:%Y}/{path}"), Err(KeyError::NoModificationTime));
    assert!(render("{run_start:%Y}/{path}").is_ok());
}

#[test]
fn an_entry_lies_below_its_archive_without_the_suffix() {
    let default = UnpackTemplate::default();
    for (archive, rendered) in [
        ("in/data.zip", "in/data/x/y.csv"),
        ("DATA.ZIP", "DATA/x/y.csv"),
        ("data.zip.zip", "data.zip/x/y.csv"),
        ("data.bin", "data/x/y.csv"),
        ("in.d/data", "in.d/data/x/y.csv"),
        ("report.2026-11-20", "report.2026-11-20/x/y.csv"),
        ("report.20261120", "report.20261120/x/y.csv"),
        ("in/.zip", "in/.zip/x/y.csv"),
        ("ü", "ü/x/y.csv"),
    ] {
        assert_eq!(default.render(archive, "x/y.csv"), rendered, "{archive}");
    }
    let flat: UnpackTemplate = "all/{entry}".parse().expect("a template");
    assert_eq!(flat.render("in/data.zip", "y.csv"), "all/y.csv");
}

#[test]
fn an_unpack_template_needs_the_entry() {
    let error = |template: &str| template.parse::<UnpackTemplate>().expect_err(template);
    assert_eq!(error("{archive}"), TemplateError::LacksEntry);
    assert_eq!(error("{{entry}}"), TemplateError::LacksEntry);
    assert_eq!(error("{entry:%Y}"), TemplateError::TakesNoFormat("entry"));
    assert!(matches!(error("{path}/{entry}"), TemplateError::Unknown { .. }));
    assert_eq!(error("/{archive}/{entry}"), TemplateError::LeadingSlash);
}

#[test]
fn defaults_are_what_they_are_shown_as() {
    assert_eq!(KeyTemplate::default().to_string().parse(), Ok(KeyTemplate::default()));
    assert_eq!(UnpackTemplate::default().to_string().parse(), Ok(UnpackTemplate::default()));
}

proptest! {
    #[test]
    fn no_text_makes_a_template_panic(template in any::<String>(), path in "[^/]{1,9}(/[^/]{1,9}){0,3}") {
        if let Ok(template) = template.parse::<KeyTemplate>() {
            let _ = template.render(&context(&path));
        }
        let _ = template.parse::<UnpackTemplate>();
    }

    #[test]
    fn any_format_is_refused_or_renders(format in "(%[-_0]?[a-zA-Z+:#.369]{1,3}|[ -/]){0,4}") {
        if let Ok(template) = format!("x{{mtime:{format}}}").parse::<KeyTemplate>() {
            let rendered = template.render(&context("a"));
            prop_assert!(!matches!(rendered, Err(KeyError::NoModificationTime)), "{:?}", rendered);
        }
    }

    #[test]
    fn the_parts_of_a_path_make_it_up_again(path in "[a-z.]{1,5}(/[a-z.]{1,5}){0,3}") {
        let render = |template: &str| {
            template.parse::<KeyTemplate>().expect("a template").render(&context(&path))
        };
        prop_assert_eq!(render("{dir}/{name}"), ObjectKey::new(path.clone()));
        prop_assert_eq!(render("{dir}/{stem}.{ext}"), ObjectKey::new(path.clone()));
        prop_assert_eq!(render("in/{path}"), ObjectKey::new(format!("in/{path}")));
    }

    #[test]
    fn text_without_placeholders_is_itself(text in "[^/]{1,12}") {
        let escaped = text.replace('{', "{{").replace('}', "}}");
        let rendered = escaped.parse::<KeyTemplate>().expect("literal").render(&context("a"));
        prop_assert_eq!(rendered, ObjectKey::new(text));
    }
}

proptest! {
    #[test]
    fn every_entry_s_key_begins_with_the_archive_s_prefix(
        archive in "([a-c.]{1,3}/){0,2}[a-c.]{1,4}",
        entry in "([a-c.]{1,3}/){0,2}[a-c.]{1,4}/?",
        keys in proptest::sample::select(vec![
            "{path}", "in/{path}", "{dir}/{name}", "in/{dir}/{name}", "in/{dir}", "{name}", "x/{stem}.{ext}", "{run_id}/{dir}-{path}",
            "{mtime:%Y}/{path}", "in/{run_start:%Y}/{name}/{dir}", "in//{dir}{name}"
        ]),
        unpack in proptest::sample::select(vec![
            "{archive}/{entry}", "{entry}", "all/{entry}", "{archive}{entry}", "{archive}.d/{entry}", "{entry}/{archive}",
        ]),
    ) {
        let (keys, unpack): (KeyTemplate, UnpackTemplate) = (keys.parse().unwrap(), unpack.parse().unwrap());
        let path = unpack.render(&archive, &entry);
        let prefix = unpack.prefix(&archive);
        prop_assert!(path.starts_with(&prefix), "{path:?} {prefix:?}");
        let file = context(&path);
        if let Ok(key) = keys.render(&file) {
            let prefix = keys.prefix(&prefix, file.run_start, file.run_id);
            prop_assert!(key.as_str().starts_with(&prefix), "{key:?} {prefix:?}");
        }
    }
}
