//! What is done with requests before a server is asked, and with answers before the client
//! gets them.

pub(crate) mod admission;
mod chains;
mod compression;
mod cross_origin;
mod mirror;

use underpass_tests::{Proxy, ProxyBuilder, Served};

fn with(served: &Served, sections: &[(&str, &str)]) -> ProxyBuilder {
    Proxy::config(config(served, sections))
}

/// One listener and one route, with middleware of these sections: name and definition.
fn config(served: &Served, sections: &[(&str, &str)]) -> String {
    let names: Vec<String> = sections.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let mut config = format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"{}\"]\n\
         [[route]]\nupstream = \"api\"\nmiddleware = [{}]\n",
        served.addr(),
        names.join(", "),
    );
    for (name, definition) in sections {
        config += &format!("[[middleware]]\nname = \"{name}\"\n{definition}\n");
    }
    config
}
