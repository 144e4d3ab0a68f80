// All moves that hosts tell of: those under way first, then the newest.
import type { MoveView } from "../api/types";
import { allMoves, progress } from "../cluster";
import { overview } from "../live";
import { HostLink, Progress } from "../parts/notes";
import { link } from "../route";
import { use } from "../signal";
import { bytes, clock, milliseconds, percent, plain } from "../words";

export function MovesPage() {
  const seen = use(overview);
  const moves = allMoves(seen);
  const ordered = [...moves.filter((move) => !move.ended), ...moves.filter((move) => move.ended)];
  return (
    <>
      <h1>Moves</h1>
      {seen && ordered.length === 0 && <p>No host tells of a move since its agent was started.</p>}
      {ordered.length > 0 && (
        <div class="scrolls" tabIndex={0} role="region" aria-label="Moves">
          <table class="cards">
            <thead>
              <tr>
                <th>VM</th>
                <th>From → to</th>
                <th>How it stands</th>
                <th>Why</th>
                <th>Began</th>
                <th class="number">Copied</th>
                <th class="number">Took</th>
                <th class="number">Stood still</th>
                <th>Did it pay</th>
              </tr>
            </thead>
            <tbody>
              {ordered.map((move) => (
                <Row key={move.id} move={move} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function Row({ move }: { move: MoveView }) {
  return (
    <tr>
      <td data-name="VM">
        <a href={link.move(move.id, move.from)}>{move.vm}</a>
      </td>
      <td data-name="From → to">
        <HostLink name={move.from} /> → {move.to ? <HostLink name={move.to} /> : "not chosen yet"}
      </td>
      <td data-name="How it stands">
        <Standing move={move} />
      </td>
      <td data-name="Why">{move.reason}</td>
      <td data-name="Began">{clock(move.began)}</td>
      <td data-name="Copied" class="number">
        {move.copied_bytes > 0 ? bytes(move.copied_bytes) : "–"}
      </td>
      <td data-name="Took" class="number">
        {move.total_ms === null ? "–" : milliseconds(move.total_ms)}
      </td>
      <td data-name="Stood still" class="number">
        {move.downtime_ms === null ? "–" : milliseconds(move.downtime_ms)}
      </td>
      <td data-name="Did it pay">{paid(move)}</td>
    </tr>
  );
}

export function Standing({ move }: { move: MoveView }) {
  if (!move.ended) {
    return (
      <>
        <Progress part={progress(move)} name={`copied of ${move.vm}`} /> {plain(move.phase)}
      </>
    );
  }
  const made = move.phase === "done";
  return (
    <span class={made ? "badge good" : "badge gone"}>
      {made ? "✓ done" : `✕ ${plain(move.phase)}`}
      {move.outcome && !made ? `: ${move.outcome}` : ""}
    </span>
  );
}

export function paid(move: MoveView): string {
  if (move.promised_percent === null) return "–";
  const promised = `promised ${percent(move.promised_percent)}`;
  if (move.measured_percent === null) return `${promised}, not measured yet`;
  const word = move.paid === null ? "" : move.paid ? "✓ yes: " : "✕ no: ";
  return `${word}${promised}, measured ${percent(move.measured_percent)}`;
}
