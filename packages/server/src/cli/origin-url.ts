import { InvalidArgumentError } from "commander";

/** For options: without a slash at its end and without `/v1`. */
export function originURL(text: string): string {
  const url = text.replace(/\/+$/, "").replace(/\/v1$/, "");
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new InvalidArgumentError("It must be a URL such as http://127.0.0.1:8000.");
  }
  const { username, password } = new URL(url);
  if (username || password) {
    throw new InvalidArgumentError(
      "A name or a password in it is not sent, and would stand in logs. Give a key by its own option.",
    );
  }
  return url;
}
