import { useState } from "preact/hooks";
import { ApiError, login } from "../api/client";
import { ThemeButton } from "../app";
import { language, setLanguage, t } from "../i18n";
import { useAction } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Failure, Field } from "../ui/parts";

/** The form for the token; also what is left when a session has expired. */
export function Login({ expired, first }: { expired: boolean; first?: unknown }) {
  const [token, setToken] = useState("");
  const { run, busy, error } = useAction(login);
  const failure = error ?? (first instanceof ApiError ? first : undefined);
  return (
    <div class="login">
      <main class="card">
        <div class="login-head">
          <img src="/icon.svg" alt="" width={40} height={40} />
          <h1>{t("login.title")}</h1>
        </div>
        {expired && (
          <div class="banner warn" role="alert">
            <Icon name="warn" />
            <p>{t("login.expired")}</p>
          </div>
        )}
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void run({ token: token.trim() });
          }}
        >
          <Field label={t("login.token")} hint={t("login.hint")}>
            <input
              type="password"
              name="token"
              autocomplete="current-password"
              spellcheck={false}
              required
              autofocus
              value={token}
              onInput={(event) => setToken(event.currentTarget.value)}
            />
          </Field>
          {failure && <Failure error={failure} />}
          <button type="submit" class="primary" disabled={busy}>
            {t("login.submit")}
          </button>
        </form>
        <p class="hint">
          {t("login.or")} <code>ffmesh console</code>
        </p>
        <div class="login-foot">
          <button
            type="button"
            class="ghost text"
            lang={language.value === "en" ? "zh-CN" : "en"}
            onClick={() => setLanguage(language.value === "en" ? "zh-CN" : "en")}
          >
            {language.value === "en" ? "中文" : "English"}
          </button>
          <ThemeButton />
        </div>
      </main>
    </div>
  );
}
