//! `[tracing]`: the collector that is told of exchanges, and how many of them.

use crate::spans::Collector;

use super::{
    collector,
    effective::{header, key, text},
    errors::Wrong,
    section::Section,
};

/// Where the specification of OTLP/HTTP has collectors take traces.
const PATH: &str = "/v1/traces";

/// Reads the section, if there is one.
pub(super) fn read(file: &Section<'_>) -> Option<Collector> {
    let keys = &["endpoint", "ca", "service_name", "sample_ratio", "trust_parent", "headers"];
    let section = file.table("tracing", "[tracing]", keys)?;
    let endpoint = collector::endpoint(&section, "\"http://127.0.0.1:4318\"", PATH);
    let name = |text: &str| match text.trim() {
        "" => Err(Wrong::new("an empty name", "write for example \"edge\"")),
        name => Ok(name.to_owned()),
    };
    let service = section.parsed("service_name", "\"edge\"", name);
    let headers = collector::headers(&section);
    let endpoint = endpoint?;
    Some(Collector {
        server: endpoint.server,
        tls: endpoint.tls,
        path: endpoint.path,
        headers,
        service: service.map_or("underpass".to_owned(), |name| name.value),
        ratio: section.ratio("sample_ratio").unwrap_or(1.0),
        trust_parent: section.switch("trust_parent").unwrap_or(true),
    })
}

/// Writes it as a section of the effective configuration.
pub(super) fn write(out: &mut String, told: Option<&Collector>) {
    let Some(told) = told else { return };
    header(out, "[tracing]");
    collector::write(out, &told.server, &told.path, told.tls.as_ref());
    text(out, "service_name", &told.service);
    key(out, "sample_ratio", format!("{:?}", told.ratio));
    key(out, "trust_parent", told.trust_parent);
    collector::write_headers(out, "[tracing.headers]", &told.headers);
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    const REST: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\n\
                        [[route]]\nupstream = \"a\"\n[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n";

    #[test]
    fn a_collector_is_read_and_written_back() {
        let text = "[tracing]\nendpoint = \"http://otel.internal:4318/\"\nsample_ratio = 0.25\n\
                    trust_parent = false\nheaders = { authorization = \"Bearer x\" }\n";
        let config = parse(&format!("{text}{REST}"), "t.toml").unwrap();
        let collector = config.tracing.clone().unwrap();
        assert_eq!(collector.server.to_string(), "otel.internal:4318");
        assert_eq!((collector.path.as_str(), collector.ratio), ("/v1/traces", 0.25));
        assert!(!collector.trust_parent);
        let effective = config.effective();
        assert!(!effective.contains("Bearer x"), "{effective}");
        let back = parse(&effective, "effective.toml").unwrap().tracing.unwrap();
        assert_eq!((back.server, back.path, back.ratio), (collector.server, collector.path, 0.25));
    }

    #[test]
    fn wrong_ones_have_one_problem_with_a_cure() {
        for (section, what, cure) in [
            ("", "no `endpoint`", "http://127.0.0.1:4318"),
            ("endpoint = \"127.0.0.1:4318\"", "not the URL", "http://127.0.0.1:4318"),
            ("endpoint = \"https://o:1\"\nca = \"/nowhere\"", "cannot be read", "in PEM"),
            ("endpoint = \"http://o:1\"\nca = \"/nowhere\"", "no TLS", "https://"),
            ("endpoint = \"http://o:1\"\nsample_ratio = 2", "no share", "0.0 to 1.0"),
            ("endpoint = \"http://o:1\"\nservice_name = \" \"", "an empty name", "edge"),
            (
                "endpoint = \"http://o:1\"\nheaders = { \"a b\" = \"c\" }",
                "not the name",
                "one line",
            ),
        ] {
            let errors =
                parse(&format!("[tracing]\n{section}\n{REST}"), "t.toml").expect_err(section);
            assert_eq!(errors.iter().count(), 1, "{errors}");
            let text = errors.to_string();
            assert!(text.contains(what) && text.contains(cure), "{section}: {text}");
        }
    }
}
