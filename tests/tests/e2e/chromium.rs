//! What only a browser shows, in headless Chromium: the operator's page, and answers of the filter. Chromium and its driver
//! are needed: scripts/e2e leaves these tests out, and says so, where they are not installed.
mod answers;
mod behind_the_filter;
mod driver;
mod operator_page;
