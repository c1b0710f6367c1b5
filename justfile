# `just` lists these.
_default:
    @just --list

# What CI runs: formatting, lints, all tests, the demo. As root, for the tests in network namespaces.
check:
    .ci/run

# Formatting and lints only
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests; those that need root say so without it. `just test aborts` runs those with that word in their name.
test *words:
    cargo test --workspace {{ words }}

# Only the acceptance tests: real nodes in network namespaces
acceptance *words:
    cargo test --test acceptance -- {{ words }}

# The console: its logic, and every page in a browser (needs Node.js 20.19, npm and Chromium)
console:
    cd web && npm ci && npm test && npm run e2e

# A whole mesh on loopback; prints what to try
demo *options:
    cargo run --release -- demo {{ options }}

# Licences, advisories and sources of what we build on (needs cargo-deny)
dependencies:
    cargo deny --all-features check
