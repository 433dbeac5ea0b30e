// A real OpenID provider (oidc-provider) over TLS, and a browser that logs users in and out of it. The test steers it
// over plain HTTP:
//
//   POST /clients  {client_id: backchannel_logout_uri, …}   makes the provider
//   POST /login    {client_id, user}                        {session, access_token}; each login is a browser of its own
//   POST /logout   {session}                                {told: [{client_id, sid, ok, error}]}: whom the provider told
//
// Arguments: certificate, key, the file to write {"control", "issuer", "jwks"} to. NODE_EXTRA_CA_CERTS must name the
// certificate too, for the browser.
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';

import { Provider } from 'oidc-provider';

const [certificate, key, ready] = process.argv.slice(2);
const API = 'https://api.example';

const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const named = { kid: 'provider', alg: 'RS256', use: 'sig' };
const signing = { ...privateKey.export({ format: 'jwk' }), ...named };
const published = { ...publicKey.export({ format: 'jwk' }), ...named };

let handler = (_, response) => response.writeHead(503).end();
const tls = createTlsServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (...all) => handler(...all));
await new Promise((listening) => tls.listen(0, '127.0.0.1', listening));
const issuer = `https://localhost:${tls.address().port}`;
const redirect = `${issuer}/back`;

const told = [];
let secrets;

function makeProvider(clients) {
  secrets = {};
  const registered = Object.entries(clients).map(([client_id, backchannel_logout_uri]) => {
    secrets[client_id] = randomBytes(32).toString('hex');
    return {
      client_id,
      client_secret: secrets[client_id],
      redirect_uris: [redirect],
      backchannel_logout_uri,
      backchannel_logout_session_required: true,
    };
  });
  const provider = new Provider(issuer, {
    clients: registered,
    jwks: { keys: [signing] },
    cookies: { keys: [randomBytes(32).toString('hex')] },
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    // What its own protection against requests to loopback would not let pass.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    extraTokenClaims: (context) => ({ sid: context.oidc.entities.AuthorizationCode?.sid }),
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => API,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: 'openid', audience: 'api', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  provider.on('backchannel.success', (_, client, account, sid) => {
    told.push({ client_id: client.clientId, account, sid, ok: true });
  });
  provider.on('backchannel.error', (_, error, client, account, sid) => {
    told.push({ client_id: client.clientId, account, sid, ok: false, error: error.message });
  });
  handler = provider.callback();
}

// Cookies and redirects, as a browser has them.
class Browser {
  cookies = new Map();

  async go(url, options = {}) {
    let target = new URL(url, issuer);
    for (let steps = 0; steps < 20; steps += 1) {
      const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const response = await fetch(target, { ...options, redirect: 'manual', headers: { ...options.headers, cookie } });
      for (const line of response.headers.getSetCookie()) {
        const [name, value] = line.split(';')[0].split(/=(.*)/s);
        if (value) this.cookies.set(name, value); else this.cookies.delete(name);
      }
      const location = response.headers.get('location');
      if (!location) return { url: target, status: response.status, text: await response.text() };
      target = new URL(location, target);
      options = {};
      if (target.href.startsWith(redirect)) return { url: target };
    }
    throw new Error('too many redirects');
  }

  submit(page, fields) {
    const action = page.text.match(/<form[^>]* action="([^"]+)"/)[1];
    for (const [, name, value] of page.text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)"/g)) {
      fields[name] ??= value;
    }
    return this.go(new URL(action, page.url), { method: 'POST', body: new URLSearchParams(fields) });
  }
}

const sessions = new Map();

async function login({ client_id, user }) {
  const browser = new Browser();
  const verifier = randomBytes(32).toString('base64url');
  const query = new URLSearchParams({
    client_id,
    response_type: 'code',
    scope: 'openid',
    redirect_uri: redirect,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  let page = await browser.go(`/auth?${query}`);
  page = await browser.submit(page, { login: user, password: 'any' });
  page = await browser.submit(page, {});
  const code = page.url.searchParams.get('code');
  if (!code) throw new Error(`no code: ${page.url} ${page.text}`);
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`${client_id}:${secrets[client_id]}`).toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: redirect, code_verifier: verifier }),
  });
  const tokens = await answer.json();
  if (!tokens.access_token) throw new Error(JSON.stringify(tokens));
  const session = randomBytes(8).toString('hex');
  sessions.set(session, { browser, tokens });
  return { session, access_token: tokens.access_token };
}

async function logout({ session }) {
  const { browser, tokens } = sessions.get(session);
  told.length = 0;
  const page = await browser.go(`/session/end?${new URLSearchParams({ id_token_hint: tokens.id_token })}`);
  const end = await browser.submit(page, { logout: 'yes' });
  if (end.status !== 200) throw new Error(`${end.status} ${end.text}`);
  return { told };
}

const steps = { '/clients': async (clients) => makeProvider(clients) ?? {}, '/login': login, '/logout': logout };
const control = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  try {
    const done = await steps[request.url](JSON.parse(Buffer.concat(chunks)));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(done));
  } catch (error) {
    console.error(error);
    response.writeHead(500).end(String(error));
  }
});
await new Promise((listening) => control.listen(0, '127.0.0.1', listening));
const { port } = control.address();
writeFileSync(`${ready}.new`, JSON.stringify({ control: `127.0.0.1:${port}`, issuer, jwks: { keys: [published] } }));
renameSync(`${ready}.new`, ready);
