//! The same cache in each proxy's language. What of each has nothing to do with caches is in
//! `server/conf.rs`.

use std::{net::SocketAddr, path::Path};

/// What a row needs of a cache, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// In memory.
    pub(crate) memory: u64,
    /// In files.
    pub(crate) disk: u64,
    /// Whether ranges are to be kept in blocks.
    pub(crate) slices: bool,
}

/// What blocks have where ranges are kept: ours by default, and told to nginx.
pub(crate) const BLOCK_BYTES: u64 = 256 << 10;

/// Ours with a cache, on the disk too if there is a folder, and with an admin endpoint.
pub(super) fn underpass(plain: &str, needs: Needs, folder: Option<&Path>) -> String {
    let cached = plain.replacen("[[route]]\n", "[[route]]\ncache = true\n", 1);
    let disk = folder.map_or_else(String::new, |folder| {
        format!("directory = \"{}\"\ndisk_bytes = {}\n", folder.display(), needs.disk)
    });
    format!(
        "{cached}[admin]\naddress = \"127.0.0.1:0\"\n[cache]\nmemory_bytes = {}\n{disk}",
        needs.memory
    )
}

/// nginx with `proxy_cache`. `sendfile` and `tcp_nopush` are on as Debian has them; open files
/// are kept, which is not the default and saves it most of its calls of open(2): of files fewer than
/// descriptors, because it answers 500 where it has none left. Who comes while
/// an answer is fetched waits for as long as it takes.
pub(super) fn nginx(plain: &str, needs: Needs, folder: &Path) -> String {
    let folder = folder.display();
    let zone = format!(
        "http {{
  sendfile on;
  tcp_nopush on;
  open_file_cache max=8000 inactive=600s;
  open_file_cache_valid 600s;
  proxy_cache_path {folder} levels=1:2 keys_zone=kept:64m max_size={} inactive=1d use_temp_path=off;
",
        needs.disk
    );
    let (key, slice) = match needs.slices {
        false => ("$scheme$http_host$request_uri", String::new()),
        true => (
            "$scheme$http_host$request_uri$slice_range",
            format!("slice {BLOCK_BYTES};\n      proxy_set_header Range $slice_range;\n      "),
        ),
    };
    let location = format!(
        "location / {{
      {slice}proxy_cache kept;
      proxy_cache_key {key};
      proxy_cache_valid 200 206 1d;
      proxy_cache_lock on;
      proxy_cache_lock_age 600s;
      proxy_cache_lock_timeout 600s;
      add_header X-Cache $upstream_cache_status;"
    );
    // Answers that are kept go through files.
    plain.replacen("http {\n", &zone, 1).replacen("location / {", &location, 1).replacen(
        "proxy_max_temp_file_size 0;",
        "",
        1,
    )
}

/// Varnish's rules: the built-in ones, and a field that says what it did.
pub(super) fn varnish(origin: SocketAddr) -> String {
    format!(
        "vcl 4.1;
backend default {{ .host = \"{}\"; .port = \"{}\"; }}
sub vcl_hit {{ set req.http.X-Did = \"HIT\"; }}
sub vcl_miss {{ set req.http.X-Did = \"MISS\"; }}
sub vcl_pass {{ set req.http.X-Did = \"PASS\"; }}
sub vcl_backend_fetch {{ unset bereq.http.X-Did; }}
sub vcl_deliver {{ set resp.http.X-Cache = req.http.X-Did; }}
",
        origin.ip(),
        origin.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { memory: 1 << 20, disk: 64 << 20, slices: false };

    #[test]
    fn each_is_told_of_the_cache() {
        let ours = underpass("workers = 1\n[[route]]\nupstream = \"o\"\n", NEEDS, None);
        assert!(ours.contains("[[route]]\ncache = true\n") && ours.contains("= 1048576\n"));
        assert!(!ours.contains("directory"));
        let folder = Path::new("/f");
        let disk = underpass("[[route]]\n", NEEDS, Some(folder));
        assert!(disk.contains("directory = \"/f\"\ndisk_bytes = 67108864\n"), "{disk}");
        let plain = "http {\n  location / {\n}\n}\nproxy_max_temp_file_size 0;";
        let nginx_whole = nginx(plain, NEEDS, folder);
        assert!(nginx_whole.contains("proxy_cache_path /f ") && !nginx_whole.contains("slice "));
        assert!(!nginx_whole.contains("temp_file_size"));
        let slices = nginx(plain, Needs { slices: true, ..NEEDS }, folder);
        assert!(slices.contains("slice 262144;") && slices.contains("$slice_range;"), "{slices}");
        let varnish = varnish("127.0.0.1:81".parse().unwrap());
        assert!(varnish.contains(".port = \"81\""), "{varnish}");
    }
}
