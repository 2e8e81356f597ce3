import { CHECK_MUTANTS } from '../fuzz/mutants.ts';

export interface Mutant {
  /** The design rule that it disables. */
  readonly rule: string;
  readonly title: string;
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly from: string;
  readonly to: string;
  /** The suite that must notice: the model by default. */
  readonly suite?: 'fuzz' | 'envoy' | 'preflight' | 'federation';
}

const PREFLIGHT = 'src/preflight/preflight.ts';
const DECIDE = 'src/core/decide.ts';
const PUBLISHER = 'src/agent/publisher.ts';
const GATEWAY = 'src/gateway/gateway.ts';
const EMISSARY = 'src/gateway/emissary/gateway.ts';
const TLS_CONTEXT = 'src/gateway/emissary/routes.ts';
const PLAN = 'src/core/plan.ts';
const TRUST = 'src/core/trust.ts';
const HOLD = 'src/core/hold.ts';
const CHECKS = 'src/core/checks.ts';
const UPSTREAM_TRUST = 'src/core/upstream-trust.ts';
const DESIRED = 'src/gateway/desired.ts';
const DOMAINS = '5 roots of two trust domains never meet';

export const MUTANTS: readonly Mutant[] = [
  {
    rule: '1 bad never replaces good',
    title: 'what the mesh pushes is published unverified',
    file: DECIDE,
    from: 'const accepted = judged && !judged.refused && !judged.unproven ? candidate : undefined;',
    to: 'const accepted = candidate;',
  },
  {
    rule: '1 bad never replaces good',
    title: 'the key is not compared with the leaf',
    file: CHECKS,
    from: 'if (expected.keyless) return undefined;',
    to: 'return undefined;',
  },
  {
    rule: '1 bad never replaces good',
    title: 'the path to a root is not checked',
    file: 'src/core/verify.ts',
    from: "reasons: ['no_issuer', 'no_root'],",
    to: 'reasons: [],',
  },
  {
    rule: '1 bad never replaces good',
    title: 'any identity of the mesh is accepted',
    file: DECIDE,
    from: 'situation.expectation.id ?? current?.identity.id ?? candidate.id',
    to: 'candidate.id',
  },
  {
    rule: '1 bad never replaces good',
    title: 'a pair that OpenSSL refuses is published',
    file: DECIDE,
    from: 'return verdict.ok ? { ok: true } : { ok: false, refused: { code: verdict.code, message: verdict.message } };',
    to: 'return { ok: true };',
    suite: 'preflight',
  },
  {
    rule: '1 bad never replaces good',
    title: 'a pair is published before its preflight',
    file: DECIDE,
    from: 'if (!verdict) return { ok: false, unproven: proof };',
    to: 'if (!verdict) return { ok: true };',
    suite: 'preflight',
  },
  {
    rule: '1 bad never replaces good',
    title: 'the preflight server ignores the verdict of OpenSSL',
    file: PREFLIGHT,
    from: 'return socket.authorized ? { ok: true } : refused(reasonIn(socket));',
    to: 'return { ok: true };',
    suite: 'preflight',
  },
  {
    rule: '1 bad never replaces good',
    title: 'a preflight that fails to run counts as a pass',
    file: PREFLIGHT,
    from: "  ok: false,\n  code: 'ERR_VERIFY_PREFLIGHT_FAILED',",
    to: "  ok: true,\n  code: 'ERR_VERIFY_PREFLIGHT_FAILED',",
    suite: 'preflight',
  },
  {
    rule: '2 one publish, one write',
    title: 'the version that was last read is not sent',
    file: PUBLISHER,
    from: '...step.precondition, ...(resourceVersion && { resourceVersion })',
    to: '',
  },
  {
    rule: '2 one publish, one write',
    title: 'the uid of the object is not sent',
    file: 'src/objects/objects.ts',
    from: '...(uid && { uid }), ',
    to: '',
  },
  {
    rule: '2 one publish, one write',
    title: 'a missing object is applied instead of created',
    file: PUBLISHER,
    from: 'const created = await kube.create(step.object, options, signal);',
    to: 'const created = await kube.apply(step.object, { ...options, force: true }, signal);',
  },
  {
    rule: '2 one publish, one write',
    title: 'an object is deleted and recreated to change it',
    file: PUBLISHER,
    from: 'const live = view.get(refOf(step.object));',
    to: 'const live = view.get(refOf(step.object));\n  if (live) { await kube.delete(refOf(live), {}, signal); return kube.create(step.object, options, signal); }',
  },
  {
    rule: '3 order',
    title: 'the pair is written before the bundle',
    file: GATEWAY,
    from: 'const ORDER = { trust: 1, identity: 2, gateway: 3 } as const;',
    to: 'const ORDER = { trust: 2, identity: 1, gateway: 3 } as const;',
  },
  {
    rule: '3 order',
    title: 'the TLSContext is written before its Secrets',
    file: GATEWAY,
    from: 'const ORDER = { trust: 1, identity: 2, gateway: 3 } as const;',
    to: 'const ORDER = { trust: 1, identity: 2, gateway: 0 } as const;',
  },
  {
    rule: '3 order',
    title: 'later steps run although an earlier one failed',
    file: PUBLISHER,
    from: 'if (step.gateway === undefined || !isAboutObject(cause)) return { written, problems, skipped, stopped: true };',
    to: '',
  },
  {
    rule: '3 order',
    title: 'Secrets and TLSContexts change at the same moment',
    file: EMISSARY,
    from: 'batchGapMs: BATCH_GAP_MS,',
    to: 'batchGapMs: 0,',
  },
  {
    rule: '3 order',
    title: 'a new process ignores what the previous one has just written',
    file: 'src/agent/write-order.ts',
    from: 'if (this.#active > 0 || this.#waiting.size > 0) return;',
    to: 'return;',
  },
  {
    rule: '4 no change, no write',
    title: 'everything is written at each reconcile',
    file: PLAN,
    from: "action: changed.length > 0 ? 'apply' : 'none',",
    to: "action: 'apply',",
  },
  {
    rule: '4 no change, no write',
    title: 'the time at which a root was dropped is not read back',
    file: 'src/core/trust.ts',
    from: "for (const entry of text.split(',')) {",
    to: 'for (const entry of []) {',
  },
  {
    rule: '5 trust first in, last out',
    title: 'a root is removed as soon as the mesh drops it',
    file: TRUST,
    from: "const end = mark?.state === 'retained' ? mark.at + retain : Number.POSITIVE_INFINITY;",
    to: "const end = mark?.state === 'retained' ? now : Number.POSITIVE_INFINITY;",
  },
  {
    rule: '5 trust first in, last out',
    title: 'retention does not wait for the lifetime of a leaf',
    file: TRUST,
    from: 'const retain = Math.max(input.retainMs, leafLifetimeMs);',
    to: 'const retain = input.retainMs;',
  },
  {
    rule: '5 trust first in, last out',
    title: 'a root is removed although the published leaf needs it',
    file: TRUST,
    from: 'const needed = indispensable(chain, bundle, all, now);',
    to: 'const needed = undefined as Certificate | undefined;',
  },
  {
    rule: '5 trust first in, last out',
    title: 'roots that the mesh names are not added while the leaf is held back',
    file: DECIDE,
    from: 'judged && accepted ? judged.trust',
    to: 'judged && accepted && namedRoots(published.bundle, published.since).length === 0 ? judged.trust',
  },
  {
    rule: '5 trust first in, last out',
    title: 'no leaf is ever held back',
    file: HOLD,
    from: "if (!current) return release('first');",
    to: "return release('first');",
  },
  {
    rule: '5 trust first in, last out',
    title: 'a root that was dropped and named again counts as old',
    file: TRUST,
    from: "(time.state === 'added' ? time.at : time.addedAt)",
    to: "(time.state === 'added' ? time.at : undefined)",
  },
  {
    rule: '5 trust first in, last out',
    title: 'a new root makes the next one count as trusted',
    file: HOLD,
    from: '? under.some((root) => known.includes(root) && carriers.includes(root))',
    to: '? under.some((root) => carriers.includes(root))',
  },
  {
    rule: '5 trust first in, last out',
    title: 'a push without roots counts as a change',
    file: TRUST,
    from: 'const named = input.named.length > 0 ? input.named : before;',
    to: 'const named = input.named;',
  },
  {
    rule: '5 trust first in, last out',
    title: 'the refusal of a probe is ignored',
    file: HOLD,
    from: "if (input.probe === 'refused') return { hold: true, reason: 'probe_refused', until: emergency };",
    to: '',
  },
  {
    rule: '6 own or leave',
    title: 'the owner label is not checked',
    file: PLAN,
    from: 'if (holder !== owner || !(live.metadata.managedFields ?? []).some(isOurs)) {',
    to: 'if (!(live.metadata.managedFields ?? []).some(isOurs)) {',
  },
  {
    rule: '6 own or leave',
    title: 'the field manager is not checked',
    file: PLAN,
    from: 'if (holder !== owner || !(live.metadata.managedFields ?? []).some(isOurs)) {',
    to: 'if (holder !== owner) {',
  },
  {
    rule: '6 own or leave',
    title: 'fields of the agent are not taken back from other clients',
    file: PUBLISHER,
    from: '{ ...options, force: true }',
    to: 'options',
  },
  {
    rule: '7 one writer',
    title: 'the Lease is not checked before a write',
    file: PUBLISHER,
    from: '  fence.check();\n  if (step.action',
    to: '  if (step.action',
  },
  {
    rule: '7 one writer',
    title: 'only the first of the two requests of a write is fenced',
    file: PUBLISHER,
    from: '  if (reclaimed) fence.check();\n',
    to: '',
  },
  {
    rule: '7 one writer',
    title: 'an older leaf may replace a newer one',
    file: PLAN,
    from: 'if (leaf && differs && isNewerPublished(leaf, object, live, now)) {',
    to: 'if (false) {',
  },
  {
    rule: '8 traps',
    title: 'the TLSContext asks for client certificates',
    file: TLS_CONTEXT,
    from: 'hosts: [],',
    to: 'hosts: [],\n    cert_required: true,',
  },
  {
    rule: DOMAINS,
    title: 'a published bundle of a third domain is retained',
    file: UPSTREAM_TRUST,
    from: 'const before = published?.trustDomain === trustDomain ? published : undefined;',
    to: 'const before = published;',
    suite: 'federation',
  },
  {
    rule: DOMAINS,
    title: 'the published bundle is forgotten while the mesh does not answer',
    file: UPSTREAM_TRUST,
    from: ': published && { trustDomain: published.trustDomain,',
    to: ': published && false && { trustDomain: published.trustDomain,',
    suite: 'federation',
  },
  {
    rule: DOMAINS,
    title: 'a bundle that nothing was verified by is not checked',
    file: UPSTREAM_TRUST,
    from: 'const problem = trust.problem ?? verifyBundle(trust.bundle);',
    to: 'const problem = trust.problem;',
    suite: 'federation',
  },
  {
    rule: DOMAINS,
    title: 'a bundle that is refused is published',
    file: DECIDE,
    from: 'identity && proven?.ok && !foreign?.refused && !revocation?.unproven',
    to: 'identity && proven?.ok && !revocation?.unproven',
    suite: 'federation',
  },
  {
    rule: DOMAINS,
    title: 'upstreams are verified by the roots of the own domain',
    file: DESIRED,
    from: 'const trusted = upstream ?? { bundle, since };',
    to: 'const trusted = { bundle, since };',
    suite: 'federation',
  },
  {
    rule: DOMAINS,
    title: 'upstreams are verified by the roots of both domains',
    file: DESIRED,
    from: 'const trusted = upstream ?? { bundle, since };',
    to: 'const trusted = upstream ? { ...upstream, bundle: [...upstream.bundle, ...bundle] } : { bundle, since };',
    suite: 'federation',
  },
  {
    rule: DOMAINS,
    title: 'the pair stands beside roots that do not prove it',
    file: DESIRED,
    from: "'ca.crt': upstream ? formatCertificates(bundle) : roots,",
    to: "'ca.crt': roots,",
    suite: 'federation',
  },
  ...CHECK_MUTANTS,
];
