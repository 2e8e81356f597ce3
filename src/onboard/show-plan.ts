import { bare } from './diff.ts';
import { type OnboardPlan, type OnboardStep, titleOf } from './plan.ts';
import { yamlOf } from './yaml.ts';

const VERB = { create: 'create', change: 'change', none: 'unchanged', keep: 'keep' } as const;

/** Every object in the order in which it is written, with what changes in it. Ends in a newline. */
export function showPlan({ steps, moves }: Pick<OnboardPlan, 'steps' | 'moves'>): string {
  const all = [...steps, ...moves];
  const width = Math.max(...Object.values(VERB).map((verb) => verb.length));
  const lines = all.flatMap((step) => [
    `  ${VERB[step.action].padEnd(width)}  ${titleOf(step)}`,
    ...(step.note === undefined ? [] : [`      ${step.note}`]),
    ...shortened(step).map((line) => `      ${line}`),
  ]);
  return `Plan\n${lines.join('\n')}\n`;
}

/** Nobody reads the schema of a definition in a plan. */
function shortened({ object, diff }: OnboardStep): readonly string[] {
  if (object.kind !== 'CustomResourceDefinition') return diff;
  return diff.length === 0 ? [] : ['as `meshcert schema --crd` prints it'];
}

/** What has to be applied, as YAML documents: for a repository that something else applies. */
export function planAsYaml({ steps, moves }: Pick<OnboardPlan, 'steps' | 'moves'>): string {
  const objects = [...steps.filter(({ action }) => action !== 'keep'), ...moves].map(({ object }) => object);
  return objects.map((object) => `---\n${yamlOf(bare(object), { sorted: false })}`).join('');
}
