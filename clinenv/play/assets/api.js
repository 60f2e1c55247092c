// The server's JSON interface. The page without a server brings a file of the same name with the same functions.

async function ask(path, body, method) {
  let answer;
  try {
    answer = await fetch(
      path,
      body === undefined
        ? { method }
        : {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify(body),
          },
    );
  } catch {
    throw new Error("the server does not answer; start clinenv play again and reload the page");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error ?? `the server answers ${answer.status}; reload the page`);
  return found;
}

const root = (name) => `/api/sessions/${encodeURIComponent(name)}`;

export const setting = () => ask("/api/setting");
export const begin = (patient) => ask("/api/sessions", patient);
export const look = (name) => ask(root(name));
export const order = async (name, branch, step, action) =>
  (await ask(`${root(name)}/orders`, { branch, step, action })).moment;
export const fork = async (name, branch, step) => (await ask(`${root(name)}/branches`, { branch, step })).branch;
export const close = (name) => ask(root(name), undefined, "DELETE");

export async function ecg(name, branch, step, role) {
  const answer = await fetch(`${root(name)}/ecg/${branch}/${step}/${role}`);
  if (answer.status === 404) return null;
  if (!answer.ok)
    throw new Error((await answer.json().catch(() => ({}))).error ?? "the ECG cannot be drawn; reload the page");
  return answer.text();
}
