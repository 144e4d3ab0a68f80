// A question before something is done. The browser's own dialog keeps the keyboard in it, and Escape leaves it.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused } from "../api/client";
import type { Problem } from "../api/types";
import { ProblemNote } from "./notes";

interface Props {
  title: string;
  /** What the button that does it says. */
  does: string;
  /** Does it; the dialog is closed if it was done. */
  act: () => Promise<void>;
  close: () => void;
  children?: ComponentChildren;
}

export function Dialog({ title, does, act, close, children }: Props) {
  const place = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => place.current?.showModal(), []);
  const submit = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await act();
      close();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setProblem(error.problem);
    } finally {
      setBusy(false);
    }
  };
  return (
    <dialog ref={place} onClose={close} aria-labelledby="dialog-title">
      <h2 id="dialog-title">{title}</h2>
      {children}
      {problem && <ProblemNote problem={problem} />}
      <div class="row end">
        <button type="button" onClick={close}>
          Cancel
        </button>
        <button type="button" class="does" disabled={busy} onClick={submit}>
          {busy ? "Asking…" : does}
        </button>
      </div>
    </dialog>
  );
}
