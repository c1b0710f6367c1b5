/** The browser's own modal dialog: it keeps the focus inside, closes with Esc and gives the focus back. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api/client";
import { t } from "../i18n";
import { Icon } from "./icons";
import { Failure } from "./parts";

export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        props.onClose();
      }}
      onClick={(event) => event.target === dialog.current && props.onClose()}
    >
      <div class="dialog-body">
        <div class="card-head">
          <h2 id="dialog-title">{props.title}</h2>
          <button type="button" class="ghost" aria-label={t("common.close")} onClick={props.onClose}>
            <Icon name="close" />
          </button>
        </div>
        {props.children}
      </div>
    </dialog>
  );
}

/** Runs something that may fail; keeps what it said. */
export function useAction<A extends unknown[], R>(action: (...input: A) => Promise<R>) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | undefined>();
  const [result, setResult] = useState<R | undefined>();
  const run = async (...input: A): Promise<boolean> => {
    setBusy(true);
    setError(undefined);
    setResult(undefined);
    try {
      setResult(await action(...input));
      return true;
    } catch (failure) {
      setError(failure instanceof ApiError ? failure : new ApiError(0, String(failure)));
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, error, result };
}

/** Asks before something that can't be taken back. */
export function Confirm(props: {
  title: string;
  text: string;
  action: string;
  onConfirm: () => Promise<unknown>;
  onClose: () => void;
}) {
  const { run, busy, error } = useAction(props.onConfirm);
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <p>{props.text}</p>
      {error && <Failure error={error} />}
      <div class="buttons">
        <button type="button" onClick={props.onClose}>
          {t("common.cancel")}
        </button>
        <button
          type="button"
          class="danger"
          disabled={busy}
          onClick={async () => {
            if (await run()) props.onClose();
          }}
        >
          {props.action}
        </button>
      </div>
    </Dialog>
  );
}
